"""Models on two GPUs, and mixtures with experts on the CPU: they say what the CPU alone says.

One device in software is listed twice, which llama.cpp takes for two.
"""

from __future__ import annotations

import pathlib

import pytest

from cortex.v1 import generation_pb2 as generation
from tests.doubles import random_llama, random_mixture
from tests.doubles.gpu_neuron import GPU, MIB, gpu_neuron, held
from tests.doubles.neuron_host import NeuronHost

pytestmark = pytest.mark.usefixtures("vulkan")
OTHER = "vulkan1"
TEXT = "Once upon a time there was a very small model."


async def judged(host: NeuronHost, name: str) -> list[float]:
    """The log probability of every token of a text."""
    request = generation.GenerateRequest(
        request_id="r1",
        model=name,
        text=TEXT,
        echo_prompt=True,
        top_logprobs=0,
        stop=generation.StopRules(max_tokens=1),
    )
    told: list[float] = []
    async for event in host.stub.Generate(request):
        told += [one.logprob for one in event.text.logprobs]
    return told[: len(TEXT)]


async def on_the_cpu(folder: pathlib.Path, name: str) -> list[float]:
    async with gpu_neuron(folder, gpu_layers=0) as host:
        await host.load(name, max_context_tokens=512)
        return await judged(host, name)


@pytest.mark.parametrize("split", ["layers", "rows"])
async def test_a_model_that_needs_two_gpus_is_divided_between_them(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, split: str
):
    monkeypatch.setenv("GGML_VK_VISIBLE_DEVICES", "0,0")
    random_llama.build(tmp_path / "echo.gguf", context=400_000)
    alone = await on_the_cpu(tmp_path, "echo")
    async with gpu_neuron(tmp_path, {"memory_budget_bytes": 130 * MIB}, split=split) as host:
        spec = {"max_context_tokens": 300_000, "max_sequences": 1}
        instance = await host.load("echo", device_ids=[GPU, OTHER], **spec)
        together = await judged(host, "echo")

    # this backend divides no rows, and would put all on the first GPU
    assert instance.engine_facts["split"] == "layers"
    assert instance.engine_facts["gpu_layers"] == "3 of 3"
    assert min(held(instance)[GPU], held(instance)[OTHER]) > 0
    assert together == pytest.approx(alone, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [2, random_mixture.LAYERS])
async def test_experts_stay_on_the_cpu_and_the_rest_goes_to_the_gpu(
    tmp_path: pathlib.Path, blocks: int
):
    random_mixture.build(tmp_path / "mix.gguf")
    alone = await on_the_cpu(tmp_path, "mix")
    async with gpu_neuron(tmp_path) as host:
        whole = held(await host.load("mix", max_context_tokens=512))
        everything = await judged(host, "mix")
    async with gpu_neuron(tmp_path, cpu_experts=blocks) as host:
        instance = await host.load("mix", max_context_tokens=512)
        divided = await judged(host, "mix")

    assert instance.engine_facts["cpu_experts"] == str(blocks)
    assert instance.engine_facts["gpu_layers"] == "5 of 5"
    assert held(instance)[GPU] < whole[GPU]
    assert everything == pytest.approx(alone, abs=0.1)
    assert divided == pytest.approx(alone, abs=0.1)

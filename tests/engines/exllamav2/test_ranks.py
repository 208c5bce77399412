"""One model over several GPUs, a process for each: the same tokens, and one fate.

Real worker processes under the real daemon; devices are emulated, and NCCL by gloo.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import torch

from cortex.v1 import model_pb2 as model
from services.backplane.errors import Reason
from services.neuron import wire
from services.neuron.settings import WorkerLimits
from tests.doubles.neuron_host import NeuronHost, refusal, running_neuron
from tests.doubles.nvml import Driver
from tests.engines.exllamav2 import folders
from tests.engines.exllamav2.asking import answers
from tests.system.fleet.worker_faults import STREAMS, Side, Stage

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(torch.cuda.is_available(), reason="devices are emulated"),
]
LIMITS = WorkerLimits(
    first_pause_seconds=0.05, start_seconds=120.0, stall_seconds=8.0, recovery_seconds=120.0
)
TOKENS = 120
PROMPTS = 20
CLEAR = 0.02
GPUS = ["GPU-0", "GPU-1", "GPU-2"]


@pytest.fixture
async def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[NeuronHost]:
    root = Path(__file__).parent
    paths = [root / "emulated", root.parent.parent.parent, root.parent.parent.parent / "protos"]
    monkeypatch.setenv("PYTHONPATH", ":".join(map(str, paths)))
    monkeypatch.setitem(sys.modules, "pynvml", Driver(4))
    monkeypatch.setattr(wire, "importable_engines", lambda **_: (["exllamav2"], list[str]()))
    async with running_neuron(tmp_path, workers=LIMITS) as host:
        yield host


async def test_a_killed_rank_takes_its_group_down_which_comes_back_as_one(host, measured) -> None:
    folders.build_random(host.folder / "victim", said=8, heads=(3, 3))
    folders.build_random(host.folder / "bystander", seed=1, said=8, heads=(3, 3))
    sizes = {"max_context_tokens": 1024, "max_sequences": STREAMS}
    group = await host.load("victim", device_ids=GPUS, parallel=model.PARALLEL_TENSOR, **sizes)
    whole = await host.load("bystander", device_ids=["GPU-3"], **sizes)
    stage = Stage(
        victim=Side(host.stub, "victim"),
        bystander=Side(host.stub, "bystander"),
        tokens=TOKENS,
        clear_margin=CLEAR,
    )
    await stage.rehearse()

    outcomes = [await stage.strike("kill -9", rank=rank) for rank in range(len(GPUS))]

    for rank, outcome in enumerate(outcomes):
        measured(f"ExLlamaV2, rank {rank} of 3, {outcome}")
    assert group.engine_facts["parallel"] == "tensor, 3 ranks"
    assert [one.device_id for one in group.memory] == GPUS
    for one in group.memory:  # the bystander is of the same shape
        assert 0.3 < one.bytes / whole.memory[0].bytes < 0.4
    assert [one.equal for one in outcomes] == [STREAMS] * len(GPUS), outcomes
    assert all(one.is_new_process and one.resumed for one in outcomes)
    deaths = {tuple(one.device_ids): one.restarts for one in (await host.status()).report.workers}
    assert deaths == {tuple(GPUS): len(GPUS), ("GPU-3",): 0}


async def test_two_ranks_say_what_one_process_says(host, measured) -> None:
    folder = folders.build_random(host.folder / "whole", said=8, heads=(8, 4))
    (host.folder / "halves").symlink_to(folder)
    sizes = {"max_context_tokens": 1024, "max_sequences": STREAMS}
    whole = await host.load("whole", device_ids=["GPU-3"], **sizes)
    halves = await host.load("halves", device_ids=GPUS[:2], parallel=model.PARALLEL_TENSOR, **sizes)
    asked = {str(n): [20 + n % 60, 20 + n // 60, *range(20, 40)] for n in range(80)}
    expected = await answers(host, "whole", asked, tokens=TOKENS // 4)
    clear = [each for each in asked if expected[each][1] >= CLEAR][:PROMPTS]

    found = await answers(host, "halves", {each: asked[each] for each in clear}, tokens=TOKENS // 4)

    equal = sum(found[each][0] == expected[each][0] for each in clear)
    shares = [one.bytes / whole.memory[0].bytes for one in halves.memory]
    told = ", ".join(f"{share:.3f}" for share in shares)
    measured(f"8 and 4 heads on 2 ranks: {equal} of {len(clear)} clear prompts, memory {told}")
    assert equal == len(clear) == PROMPTS
    assert all(0.48 < share < 0.52 for share in shares)


async def test_heads_that_do_not_divide_are_refused_in_words(host) -> None:
    folders.build_random(host.folder / "three", heads=(3, 3))

    error = await refusal(host.load("three", device_ids=GPUS[:2], parallel=model.PARALLEL_TENSOR))

    assert error.reason is Reason.NOT_SUPPORTED
    assert error.field == "spec.parallel"
    assert "num_attention_heads is 3, which 2 GPUs do not divide" in error.message

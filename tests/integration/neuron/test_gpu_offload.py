"""GGUF models on a GPU in software: a real neuron whose library is llama.cpp with Vulkan."""

from __future__ import annotations

import os
import pathlib
import signal
from typing import Any

import grpc
import pytest

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from services.neuron.settings import LlamaCppSettings, WorkerLimits
from tests.doubles import vulkan_library
from tests.doubles.neuron_host import NeuronHost, chat, running_neuron

GPU = vulkan_library.DEVICE_ID
MIB = 1 << 20
# The first pass compiles shaders, which takes long where they are not in the cache.
PATIENT = WorkerLimits(
    first_pause_seconds=0.05, start_seconds=60.0, stall_seconds=300.0, load_stall_seconds=300.0
)


@pytest.fixture(autouse=True)
def vulkan(monkeypatch: pytest.MonkeyPatch) -> None:
    if (why := vulkan_library.missing()) is not None:
        pytest.skip(why)
    for name, value in vulkan_library.environment().items():
        if name != "CORTEX_LLAMACPP_LIBRARY":
            monkeypatch.setenv(name, value)


def gpu_neuron(folder: pathlib.Path, settings: dict[str, Any] | None = None, **choices: Any):
    llamacpp = LlamaCppSettings(library=str(vulkan_library.FOLDER), **choices)
    return running_neuron(folder, llamacpp=llamacpp, workers=PATIENT, **(settings or {}))


async def said(host: NeuronHost, name: str) -> str:
    stop = generation.StopRules(max_tokens=8)
    events = [event async for event in host.stub.Generate(chat(model=name, stop=stop))]
    return "".join(event.text.text for event in events if event.HasField("text"))


async def device(host: NeuronHost, device_id: str = GPU) -> model.Device:
    devices = (await host.status()).report.devices
    return next(one for one in devices if one.device_id == device_id)


def held(instance: model.Instance) -> dict[str, int]:
    return {memory.device_id: memory.bytes for memory in instance.memory}


async def test_a_model_goes_to_the_gpu_and_gives_its_memory_back(tmp_path: pathlib.Path):
    async with gpu_neuron(tmp_path) as host:
        host.script("bravo")
        before = await device(host)

        instance = await host.load("bravo", max_context_tokens=512)

        assert before.kind == model.DEVICE_KIND_GPU
        assert before.memory_total_bytes == vulkan_library.DEVICE_BYTES
        assert instance.engine_facts["gpu_layers"] == "2 of 2"
        assert "llvmpipe" in instance.engine_facts["devices"]
        assert 0 < held(instance)[GPU] < 64 * MIB
        during = await device(host)
        assert during.memory_free_bytes == before.memory_free_bytes - held(instance)[GPU]
        assert await said(host, "bravo") == "Hello from model bravo"
        [_ async for _ in host.stub.Unload(neuron.UnloadRequest(model="bravo"))]
        assert (await device(host)).memory_free_bytes == before.memory_free_bytes


async def test_layers_that_may_not_go_to_the_gpu_stay_on_the_cpu(tmp_path: pathlib.Path):
    async with gpu_neuron(tmp_path, gpu_layers=1) as host:
        host.script("bravo")

        instance = await host.load("bravo", max_context_tokens=512)

        assert instance.engine_facts["gpu_layers"] == "1 of 2"
        assert set(held(instance)) == {GPU, "cpu"}
        workers = (await host.status()).report.workers
        assert [tuple(worker.device_ids) for worker in workers] == [("cpu", GPU)]
        assert await said(host, "bravo") == "Hello from model bravo"


async def test_without_gpu_layers_a_model_stays_on_the_cpu(tmp_path: pathlib.Path):
    async with gpu_neuron(tmp_path, gpu_layers=0) as host:
        host.script("bravo")

        instance = await host.load("bravo", max_context_tokens=512)

        assert set(held(instance)) == {"cpu"}
        assert "gpu_layers" not in instance.engine_facts


async def test_two_models_share_a_gpu_and_its_worker_comes_back_with_both(tmp_path: pathlib.Path):
    async with gpu_neuron(tmp_path) as host:
        host.script("bravo")
        host.script("charlie", words=("And", " now", " charlie"))
        for name in ("bravo", "charlie"):
            await host.load(name, max_context_tokens=512)
        (worker,) = (await host.status()).report.workers

        os.kill(worker.pid, signal.SIGKILL)

        ready = model.INSTANCE_STATE_READY
        await host.until(
            lambda status: (
                [one.state for one in status.report.instances] == [ready, ready]
                and status.report.workers[0].pid not in {0, worker.pid}
            )
        )
        assert await said(host, "bravo") == "Hello from model bravo"
        assert await said(host, "charlie") == "And now charlie"


async def test_what_the_gpu_has_no_room_for_is_told_before_it_is_loaded(tmp_path: pathlib.Path):
    async with gpu_neuron(tmp_path, {"memory_budget_bytes": 400 * MIB}) as host:
        host.script("bravo", context=1_000_000)
        spec = model.LoadSpec(model="bravo", max_context_tokens=800_000)  # 390 MiB of cache

        answer = await host.stub.CanFit(neuron.CanFitRequest(spec=spec))
        small = model.LoadSpec(model="bravo", max_context_tokens=1_000)
        other = await host.stub.CanFit(neuron.CanFitRequest(spec=small))

        assert answer.required_bytes > 400 * MIB
        assert answer.plan.startswith(f"1 of 2 layers are on {GPU}")
        assert other.plan == f"All 2 layers fit on {GPU}."
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await host.load("bravo", max_context_tokens=1_000_000, max_sequences=4)
        assert "MiB" in (refused.value.details() or "")

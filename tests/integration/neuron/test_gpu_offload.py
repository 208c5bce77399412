"""GGUF models on a GPU in software: a real neuron whose library is llama.cpp with Vulkan."""

from __future__ import annotations

import os
import pathlib
import signal

import grpc
import pytest

from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from tests.doubles import vulkan_library
from tests.doubles.gpu_neuron import GPU, MIB, gpu_neuron, held, said
from tests.doubles.neuron_host import NeuronHost

pytestmark = pytest.mark.usefixtures("vulkan")


async def device(host: NeuronHost, device_id: str = GPU) -> model.Device:
    devices = (await host.status()).report.devices
    return next(one for one in devices if one.device_id == device_id)


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

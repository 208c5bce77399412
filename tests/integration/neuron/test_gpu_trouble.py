"""GPUs that go wrong under a real neuron: no memory left, a driver that is gone, too large a file."""

from __future__ import annotations

import asyncio
import os
import pathlib
import resource
import signal

import psutil
import pytest

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import FleetError, Reason
from tests.doubles import vulkan_library
from tests.doubles.gpu_neuron import GPU, MIB, PATIENT, gpu_neuron, held, said
from tests.doubles.neuron_host import NeuronHost, chat, refusal
from tests.doubles.neuron_transports import SessionStream, session_of

pytestmark = pytest.mark.usefixtures("vulkan")
ROOMY = 1 << 40


async def worker_pid(host: NeuronHost) -> int:
    (worker,) = (await host.status()).report.workers
    return worker.pid


def leave(pid: int, spare_bytes: int) -> None:
    """Leaves a process so much address space, in which a device in software has its memory."""
    now = psutil.Process(pid).memory_info().vms
    resource.prlimit(pid, resource.RLIMIT_AS, (now + spare_bytes, resource.RLIM_INFINITY))


async def ended(stream: SessionStream) -> tuple[str, FleetError | None]:
    """What a stream says until its end; passes whose shaders are compiled take minutes."""
    text = ""
    async with asyncio.timeout(PATIENT.stall_seconds * 2):
        try:
            async for event in stream:
                text += event.text.text
        except FleetError as error:
            return text, error
    return text, None


async def test_a_device_without_memory_in_mid_load_fails_that_load_alone(tmp_path: pathlib.Path):
    async with gpu_neuron(tmp_path) as host:
        host.script("bravo")
        host.script("charlie", words=("And", " now", " charlie"), context=500_000)
        await host.load("bravo", max_context_tokens=512)
        pid = await worker_pid(host)
        leave(pid, 150 * MIB)
        wanted = model.LoadSpec(model="charlie", max_context_tokens=400_000, max_sequences=1)

        error = await refusal(host.stub.Load(neuron.LoadRequest(spec=wanted)))

        assert error.reason is Reason.OUT_OF_MEMORY, error
        assert "llama.cpp cannot make the cache" in error.message
        leave(pid, ROOMY)
        assert await said(host, "bravo") == "Hello from model bravo"
        assert await worker_pid(host) == pid
        await host.load("charlie", max_context_tokens=400_000, max_sequences=1)
        assert await said(host, "charlie") == "And now charlie"


async def test_a_device_that_disappears_fails_its_models_and_the_cpu_takes_them(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    driver = tmp_path / "driver.json"
    driver.write_bytes((vulkan_library.FOLDER / "llvmpipe.json").read_bytes())
    monkeypatch.setenv("VK_ICD_FILENAMES", str(driver))
    async with gpu_neuron(tmp_path) as host:
        host.script("bravo")
        await host.load("bravo", max_context_tokens=512)
        kept = driver.read_bytes()
        driver.unlink()

        os.kill(await worker_pid(host), signal.SIGKILL)

        def is_failed(status: neuron.NeuronStatus) -> bool:
            states = [one.state for one in status.report.instances]
            return states == [model.INSTANCE_STATE_FAILED]

        status = await host.until(is_failed)
        (instance,) = status.report.instances
        assert instance.state_reason == f"llama.cpp does not see the device {GPU}."
        wanted = model.LoadSpec(model="bravo", max_context_tokens=512)
        error = await refusal(host.stub.Load(neuron.LoadRequest(spec=wanted)))
        assert error.message == f"llama.cpp does not see the device {GPU}."
        on_cpu = await host.load("bravo", max_context_tokens=512, device_ids=["cpu"])
        assert set(held(on_cpu)) == {"cpu"}
        assert await said(host, "bravo") == "Hello from model bravo"
        driver.write_bytes(kept)
        back = await host.load("bravo", max_context_tokens=512, device_ids=[GPU])
        assert GPU in held(back)


async def test_what_two_gpus_and_the_host_cannot_hold_together_is_refused(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GGML_VK_VISIBLE_DEVICES", "0,0")
    async with gpu_neuron(tmp_path, {"memory_budget_bytes": 200 * MIB}) as host:
        host.script("huge")
        os.truncate(tmp_path / "huge.gguf", 1 << 30)
        host.script("bravo", context=4_000_000)
        files = neuron.LoadRequest(spec=model.LoadSpec(model="huge", max_context_tokens=512))
        cache = neuron.LoadRequest(spec=model.LoadSpec(model="bravo", max_context_tokens=2_000_000))

        error, other = await refusal(host.stub.Load(files)), await refusal(host.stub.Load(cache))

        assert (error.reason, other.reason) == (Reason.OUT_OF_MEMORY, Reason.OUT_OF_MEMORY)
        told = "The weights take 1024 MiB, and 600 MiB are free on all devices together."
        assert error.message == told
        assert "MiB are free; lower max_context_tokens or max_sequences." in other.message
        assert {d.device_id for d in (await host.status()).report.devices} == {
            GPU,
            "vulkan1",
            "cpu",
        }
        await host.load("bravo", max_context_tokens=512)
        assert await said(host, "bravo") == "Hello from model bravo"


async def test_a_device_without_memory_in_mid_prompt_ends_or_moves_that_request_alone(
    tmp_path: pathlib.Path,
):
    async with gpu_neuron(tmp_path) as host:
        host.script("bravo", context=8_000)
        host.script("charlie", words=("And", " now", " charlie"))
        await host.load("bravo", max_context_tokens=8_000, device_ids=[GPU])
        await host.load("charlie", max_context_tokens=512, device_ids=["cpu"])
        assert await said(host, "bravo") == "Hello from model bravo"
        (pid,) = [one.pid for one in (await host.status()).report.workers if GPU in one.device_ids]
        request = chat("x" * 1_500, model="bravo", stop=generation.StopRules(max_tokens=8))
        async with session_of(host) as session:
            stream = session.start(request)
            await host.until_busy("bravo")
            leave(pid, 0)

            beside = await said(host, "charlie")
            text, error = await ended(stream)

        assert beside == "And now charlie"
        # whatever the library did: refuse the pass, or end the process, and the next one goes on
        if error is None:
            assert text == "Hello from model bravo"
        else:
            assert error.reason in {Reason.OUT_OF_MEMORY, Reason.INTERNAL}
            assert error.message
        (now,) = [one.pid for one in (await host.status()).report.workers if GPU in one.device_ids]
        if now == pid:
            leave(pid, ROOMY)
        assert await said(host, "bravo") == "Hello from model bravo"
        assert await said(host, "charlie") == "And now charlie"

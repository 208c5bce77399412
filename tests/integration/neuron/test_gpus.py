"""A neuron with two GPUs that are none: groups, accounting, and what the driver says of faults."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import struct
import sys
from collections.abc import AsyncIterator, Sequence

import psutil
import pytest

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from services.neuron import wire
from services.neuron.supervisor.process import python_worker
from tests.doubles.neuron_host import NeuronHost, chat, refusal, running_neuron
from tests.doubles.nvml import GIB, Driver

READY, RECOVERING, FAILED = (
    model.INSTANCE_STATE_READY,
    model.INSTANCE_STATE_RECOVERING,
    model.INSTANCE_STATE_FAILED,
)
CONFIG = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 4096}


def worker(*, engine: str, fd: int) -> Sequence[str]:
    """llama.cpp for real; the GPU engine as far as the daemon can see."""
    if engine == "llamacpp":
        return python_worker(engine=engine, fd=fd)
    return [sys.executable, "-m", "tests.doubles.neuron_holding_worker", "--fd", str(fd)]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", made)
    engines = (["llamacpp", "exllamav2"], list[str]())
    monkeypatch.setattr(wire, "importable_engines", lambda **_: engines)
    return made


@pytest.fixture
async def host(driver: Driver, tmp_path: pathlib.Path) -> AsyncIterator[NeuronHost]:
    async with running_neuron(tmp_path, worker_command=worker, memory=None) as host:
        assert driver.is_open
        yield host


def put_model(host: NeuronHost, name: str, size: int) -> None:
    """A folder of safetensors of this size, which takes no room on the disk."""
    folder = host.folder / name
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    tensor = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    header = json.dumps({"weight": tensor}).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + size)


async def can_fit(host: NeuronHost, name: str) -> neuron.CanFitResponse:
    request = neuron.CanFitRequest(spec=model.LoadSpec(model=name))
    answer: neuron.CanFitResponse = await host.stub.CanFit(request)
    return answer


async def workers(host: NeuronHost) -> dict[tuple[str, ...], int]:
    """Process ids of the workers, by the devices that they own."""
    found = (await host.status()).report.workers
    return {tuple(one.device_ids): one.pid for one in found}


async def test_a_model_larger_than_a_gpu_gets_a_worker_that_owns_a_group(host, driver):
    put_model(host, "small", 2 * GIB)
    put_model(host, "large", 28 * GIB)
    await host.load("small", device_ids=["GPU-0"])
    driver.used[0] += 2 * GIB
    (alone,) = (await workers(host)).values()
    fits = await can_fit(host, "large")
    assert fits.fits
    assert [one.fits for one in fits.devices] == [True, True, False]  # and not on the CPU

    large = await host.load("large")
    for index in (0, 1):
        driver.used[index] += 14 * GIB

    group = ("GPU-0", "GPU-1")
    running = await workers(host)
    assert set(running) == {("GPU-0",), group}
    environment = psutil.Process(running[group]).environ()
    assert environment["CUDA_VISIBLE_DEVICES"] == "GPU-0,GPU-1"
    assert large.engine_facts["devices"] == "GPU-0,GPU-1"
    # Its memory counts on each device, and what lived there lives on, in its own worker.
    assert {one.device_id: one.bytes >> 30 for one in large.memory} == dict.fromkeys(group, 14)
    assert running["GPU-0",] == alone
    put_model(host, "medium", 8 * GIB)
    assert not (await can_fit(host, "medium")).fits

    [_ async for _ in host.stub.Unload(neuron.UnloadRequest(model="large"))]
    for index in (0, 1):
        driver.used[index] -= 14 * GIB

    assert await workers(host) == {("GPU-0",): alone}
    assert not psutil.pid_exists(running[group])
    await host.load("medium")
    assert set(await workers(host)) == {("GPU-0",), ("GPU-1",)}
    spoken = [e async for e in host.stub.Generate(text_request("small"))]
    assert spoken[-1].HasField("finished")


def text_request(name: str) -> generation.GenerateRequest:
    return generation.GenerateRequest(model=name, token_ids=generation.TokenIds(ids=[1]))


async def test_a_group_that_dies_comes_back_as_a_group_and_costs_nobody_else(host):
    put_model(host, "small", 2 * GIB)
    put_model(host, "large", 28 * GIB)
    await host.load("small", device_ids=["GPU-1"])
    await host.load("large")
    before = await workers(host)
    group = ("GPU-0", "GPU-1")

    os.kill(before[group], signal.SIGKILL)

    await host.until(
        lambda status: (
            any(
                one.restarts == 1 and one.pid not in {0, before[group]}
                for one in status.report.workers
            )
            and all(one.state == READY for one in status.report.instances)
        )
    )
    after = await workers(host)
    assert after.keys() == before.keys()
    assert after["GPU-1",] == before["GPU-1",]


async def test_loads_at_the_same_time_get_devices_of_their_own(host):
    """Each of them fits on the GPU with the most room, and both do not."""
    put_model(host, "one", 12 * GIB)
    put_model(host, "two", 12 * GIB)
    calls = [
        host.stub.Load(neuron.LoadRequest(spec=model.LoadSpec(model=name), detach=True))
        for name in ("one", "two")
    ]

    for call in calls:
        async for _ in call:
            pass

    assert set(await workers(host)) == {("GPU-0",), ("GPU-1",)}


async def test_what_fits_nowhere_is_said_with_numbers(host):
    put_model(host, "huge", 60 * GIB)

    answer = await can_fit(host, "huge")

    assert not answer.fits
    assert answer.required_bytes > 60 * GIB
    assert "MiB are needed" in answer.devices[0].reason
    assert answer.advice == "It would fit after another model is unloaded."


async def test_a_death_is_named_by_what_the_driver_said(host, driver):
    host.script("bravo")
    await host.load("bravo", device_ids=["GPU-0"])
    driver.xids[0].append(31)

    os.kill((await workers(host))["GPU-0",], signal.SIGKILL)

    status = await host.until(lambda status: status.report.instances[0].state == RECOVERING)
    assert "SIGKILL; the driver says: Xid 31 on GPU-0" in status.report.instances[0].state_reason
    status = await host.until(lambda status: status.report.instances[0].state == READY)
    assert "Xid 31" in status.report.workers[0].last_words
    assert not any(one.quarantine_reason for one in status.report.devices)


async def test_a_device_that_is_lost_takes_its_workers_along_and_no_others(host, driver):
    for name, device in (("bravo", "GPU-0"), ("charlie", "GPU-1")):
        host.script(name)
        await host.load(name, device_ids=[device])
    before = await workers(host)

    driver.lost.add(1)

    status = await host.until(
        lambda status: any(one.state == FAILED for one in status.report.instances)
    )
    lost = next(one for one in status.report.instances if one.spec.model == "charlie")
    assert "its device failed: Xid 79 on GPU-1: the GPU has fallen off the bus" in lost.state_reason
    (device,) = [one for one in status.report.devices if one.device_id == "GPU-1"]
    assert "Xid 79" in device.quarantine_reason
    assert (await workers(host)) == {("GPU-0",): before["GPU-0",], ("GPU-1",): 0}
    spoken = [event async for event in host.stub.Generate(chat(model="bravo"))]
    assert spoken[-1].HasField("finished")
    await refusal(host.stub.Generate(chat(model="charlie")))
    put_model(host, "small", 2 * GIB)
    await host.load("small")
    assert ("exllamav2", ("GPU-0",)) in await places(host)


async def places(host: NeuronHost) -> set[tuple[str, tuple[str, ...]]]:
    """Engine and devices of each instance's memory."""
    found = (await host.status()).report.instances
    return {(one.engine, tuple(part.device_id for part in one.memory)) for one in found}


async def test_no_process_is_started_while_the_driver_still_shows_the_dead_one(host, driver):
    host.script("bravo")
    await host.load("bravo", device_ids=["GPU-0"])
    pid = (await workers(host))["GPU-0",]
    driver.processes[0].add(pid)

    os.kill(pid, signal.SIGKILL)

    await host.until(lambda status: status.report.instances[0].state == RECOVERING)
    asked = driver.asked_for_processes
    await host.until(lambda _: driver.asked_for_processes > asked + 5)
    assert (await workers(host))["GPU-0",] == 0
    driver.processes[0].clear()
    await host.until(lambda status: status.report.instances[0].state == READY)

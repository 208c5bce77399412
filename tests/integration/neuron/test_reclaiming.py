"""Unloads as the driver sees them: a stand-in says what the device still shows as used."""

from __future__ import annotations

import pathlib
import threading
from collections.abc import Mapping, Sequence

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from tests.doubles.neuron_host import NeuronHost, chat, running_neuron

GIB = 1 << 30
READY, RECOVERING = model.INSTANCE_STATE_READY, model.INSTANCE_STATE_RECOVERING


class Driver:
    """Shows some use before an unload, and another one from its second reading on."""

    def __init__(self, before: int, after: int) -> None:
        self._readings = iter([before])
        self._after = after
        self._lock = threading.Lock()

    def used_bytes(self, device_ids: Sequence[str]) -> Mapping[str, int]:
        with self._lock:
            used = next(self._readings, self._after)
        return dict.fromkeys(device_ids, used)


async def unload(host: NeuronHost, name: str) -> neuron.Unloaded:
    steps = [step async for step in host.stub.Unload(neuron.UnloadRequest(model=name))]
    done: neuron.Unloaded = steps[-1].unloaded
    return done


async def two_models(host: NeuronHost) -> int:
    """Loads both into one worker and returns its process."""
    host.script("bravo")
    host.script("endless", words=("la", " li"), is_endless=True, context=20_000)
    await host.load("bravo")
    await host.load("endless", max_context_tokens=20_000)
    return (await host.status()).report.workers[0].pid


async def test_what_came_free_is_what_the_driver_says(tmp_path: pathlib.Path):
    async with running_neuron(tmp_path, memory=Driver(8 * GIB, 5 * GIB)) as host:
        pid = await two_models(host)

        assert (await unload(host, "bravo")).freed_bytes == 3 * GIB
        assert (await host.status()).report.workers[0].pid == pid


async def test_a_worker_that_keeps_the_memory_is_replaced_and_its_models_come_back(tmp_path):
    async with running_neuron(tmp_path, memory=Driver(8 * GIB, 9 * GIB)) as host:
        pid = await two_models(host)

        assert (await unload(host, "bravo")).freed_bytes == 0
        status = await host.until(
            lambda status: (
                status.report.workers[0].pid not in {0, pid}
                and [one.state for one in status.report.instances] == [READY]
            )
        )

        assert status.report.workers[0].restarts == 0  # it is no death
        assert status.report.workers[0].load_cycles == 1
        rules = generation.StopRules(max_tokens=3)
        events = [e async for e in host.stub.Generate(chat(model="endless", stop=rules))]
        assert events[-1].HasField("finished")


async def test_streams_are_let_to_their_end_before_the_worker_is_replaced(tmp_path):
    async with running_neuron(tmp_path, memory=Driver(8 * GIB, 9 * GIB)) as host:
        pid = await two_models(host)
        rules = generation.StopRules(max_tokens=15_000)
        stream = host.stub.Generate(chat(model="endless", stop=rules))
        await host.until_busy("endless")

        await unload(host, "bravo")
        assert (await host.status()).report.workers[0].pid == pid
        last = None
        async for event in stream:
            last = event
        assert last is not None
        assert last.finished.usage.completion_tokens == 15_000
        await host.until(lambda status: status.report.workers[0].pid not in {0, pid})


async def test_the_last_model_takes_the_process_along(tmp_path):
    async with running_neuron(tmp_path, memory=Driver(8 * GIB, 9 * GIB)) as host:
        host.script("bravo")
        await host.load("bravo")

        assert (await unload(host, "bravo")).freed_bytes == 0
        assert not (await host.status()).report.workers

"""What is made ready for a load while the model before it goes."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib

import psutil

from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from services.neuron.instances.read_ahead import ask_for
from tests.doubles.neuron_host import NeuronHost
from tests.doubles.processes import workers_below


def workers(others: frozenset[int] = frozenset()) -> set[int]:
    """Processes of workers below this one, without those of other fleets of the same run."""
    return {process.pid for process in workers_below(os.getpid())} - others


async def unload(host: NeuronHost, name: str, following: str = "") -> None:
    request = neuron.UnloadRequest(model=name)
    if following:
        request.following.CopyFrom(model.LoadSpec(model=following))
    async for _ in host.stub.Unload(request):
        pass


async def test_the_next_worker_is_started_while_the_last_one_goes(host: NeuronHost) -> None:
    others = frozenset(workers())
    await host.load("bravo")
    before = workers()

    await unload(host, "bravo", following="endless")
    async with asyncio.timeout(60):
        while not (ahead := workers() - before):
            await asyncio.sleep(0.02)
    await host.load("endless")

    (worker,) = (await host.status()).report.workers
    assert {worker.pid} == ahead
    assert not workers(others) & before  # beside it the next one may be prepared by now


async def test_nothing_is_started_where_nothing_follows_or_it_is_not_here(host: NeuronHost) -> None:
    others = frozenset(workers())
    for following in ("", "missing"):
        await host.load("bravo")
        await unload(host, "bravo", following=following)

        async with asyncio.timeout(30):  # a prepared worker would stay for SPARE_SECONDS
            while workers(others):
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        assert not workers(others)


async def test_a_prepared_worker_that_dies_harms_no_instance(host: NeuronHost) -> None:
    await host.load("bravo")
    before = workers()
    await host.load("endless")
    await unload(host, "endless", following="endless")
    async with asyncio.timeout(60):
        while not (ahead := workers() - before):
            await asyncio.sleep(0.02)

    for pid in ahead:
        with contextlib.suppress(psutil.NoSuchProcess):
            psutil.Process(pid).kill()
    await asyncio.sleep(0.3)

    instance = await host.instance("bravo")
    assert instance is not None
    assert instance.state == model.INSTANCE_STATE_READY
    await host.load("endless")


def test_files_are_asked_for_whole(tmp_path: pathlib.Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 100_000)
    (tmp_path / "b").write_bytes(b"x" * 50_000)

    assert ask_for([tmp_path / "a", tmp_path / "b"]) == 150_000

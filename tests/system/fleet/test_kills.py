"""Every process is killed in turn, under a drain and under load of all classes."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Final

import pytest
from google.protobuf.duration_pb2 import Duration

from cortex.v1 import operator_service_pb2 as op
from tests.doubles.processes import workers_below
from tests.system.fleet.clients import Answer, Clients, has_text
from tests.system.fleet.processes import Fleet, Service, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TOKENS = 1200
CLASSES = ("interactive", "default", "batch")
KEYS: Final = {name: f"sk-{name}" for name in ("ada", "bob", "cy")}
AUTH = "\n".join(f'[[auth.keys]]\nname = "{name}"\nkey = "{key}"' for name, key in KEYS.items())
AT_ONCE = Duration()
NEURONS = ("left", "middle", "right")


@dataclasses.dataclass
class Running:
    """All requests of one test, and where they were when it struck."""

    fleet: Fleet
    home: str
    streams: list[tuple[Answer, asyncio.Task[Answer]]]


@pytest.fixture
async def running(fleet: Fleet) -> AsyncIterator[Running]:
    """Two streams of each class and principal, on the one of three neurons that has the model."""
    fleet.add_registry()
    for name in NEURONS:
        fleet.add_neuron(name, settings="drain_seconds = 0.0")
    fleet.add_gateway(settings=AUTH)
    fleet.wait(*NEURONS)
    async with Clients(fleet.url) as clients:
        ada = {"authorization": f"Bearer {KEYS['ada']}"}
        assert (await clients.stream("alpha", 1, headers=ada)).is_whole
        home = until(lambda: [name for name, models in fleet.placed().items() if models])[0]
        streams = [
            clients.begin(
                "alpha",
                TOKENS,
                headers={"authorization": f"Bearer {key}", "x-cortex-class": of_class},
            )
            for key in KEYS.values()
            for of_class in CLASSES
            for _ in range(2)
        ]
        await has_text(streams[0][0])
        yield Running(fleet, home, streams)
        await asyncio.gather(*(task for _, task in streams), return_exceptions=True)
        until(lambda: fleet.live() == set(NEURONS))


def killed_and_back(service: Service) -> None:
    """Kills a service, as the kernel does when memory is short, and starts it again."""
    before = len(list(service.lines("neuron.serving")))
    service.kill()
    service.start()
    if before:  # others say so by their health
        until(lambda: len(list(service.lines("neuron.serving"))) > before)


def kill_registry(running: Running) -> None:
    killed_and_back(running.fleet["registry"])


def kill_home(running: Running) -> None:
    killed_and_back(running.fleet[running.home])


def kill_other(running: Running) -> None:
    """The neuron that takes the streams over, once it has some."""
    placed = running.fleet.placed
    other = until(lambda: [n for n, held in placed().items() if held and n != running.home])[0]
    killed_and_back(running.fleet[other])


def kill_worker(running: Running) -> None:
    """The process that holds the model, of the neuron that drains."""
    workers = workers_below(running.fleet[running.home].process.pid)
    assert workers
    for worker in workers:
        worker.kill()


def drain(running: Running) -> None:
    """As an operator does before he opens the host."""
    with running.fleet.operator() as stub:
        asked = op.DrainNeuronRequest(neuron=running.home, timeout=AT_ONCE)
        for _ in stub.DrainNeuron(asked):
            pass


@pytest.mark.parametrize("kill", [kill_registry, kill_home, kill_worker])
async def test_nothing_is_lost_or_told_twice_by_a_kill_under_load(
    running: Running, kill: Callable[[Running], None]
) -> None:
    await asyncio.to_thread(kill, running)

    answers = await asyncio.gather(*(task for _, task in running.streams))

    assert [str(answer) for answer in answers if not answer.is_whole] == []


@pytest.mark.parametrize("kill", [kill_registry, kill_other])
async def test_nothing_is_lost_or_told_twice_by_a_kill_during_a_drain(
    running: Running, kill: Callable[[Running], None]
) -> None:
    draining = asyncio.create_task(asyncio.to_thread(drain, running))
    await asyncio.to_thread(kill, running)

    answers = await asyncio.gather(*(task for _, task in running.streams))
    await asyncio.gather(draining, return_exceptions=True)  # of a registry that was killed

    assert [str(answer) for answer in answers if not answer.is_whole] == []


async def test_who_spoke_to_a_killed_gateway_is_told_so_and_the_next_one_answers(
    running: Running,
) -> None:
    fleet = running.fleet
    await asyncio.to_thread(killed_and_back, fleet["gateway"])

    answers = await asyncio.gather(*(task for _, task in running.streams))

    assert all(answer.is_whole or answer.error for answer in answers)
    assert all(answer.expected.startswith(answer.text) for answer in answers)
    until(lambda: sum(fleet.in_flight().values()) == 0)  # what nobody reads any more has ended
    fleet.wait(*NEURONS)
    async with Clients(fleet.url) as clients:
        bob = {"authorization": f"Bearer {KEYS['bob']}"}
        assert (await clients.stream("alpha", 64, headers=bob)).is_whole

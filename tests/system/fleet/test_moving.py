"""Streams that move: whatever becomes of their neuron, the client sees one answer."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.duration_pb2 import Duration

from cortex.v1 import operator_service_pb2 as op
from tests.system.fleet.clients import Clients, has_text
from tests.system.fleet.processes import until

STREAMS = 16
AT_ONCE = Duration()
TOKENS = 1500


@pytest.fixture
def pair_with_room(fleet):
    """Two neurons that could each hold the model, which one of them does."""
    fleet.add_registry()
    for name in ("left", "right"):
        fleet.add_neuron(name, settings="drain_seconds = 0.0")
    fleet.add_gateway()
    fleet.wait("left", "right")
    return fleet


def kill(fleet, name):
    """As the kernel does when memory is short."""
    fleet[name].kill()


def terminate(fleet, name):
    """As systemd does at an upgrade."""
    assert fleet[name].end() == 0


def drain(fleet, name):
    """As an operator does before he opens the host."""
    with fleet.operator() as stub:
        for _ in stub.DrainNeuron(op.DrainNeuronRequest(neuron=name, timeout=AT_ONCE)):
            pass


@pytest.mark.parametrize("leave", [kill, terminate, drain])
async def test_sixteen_streams_outlive_their_neuron(pair_with_room, measured, leave):
    fleet = pair_with_room
    async with Clients(fleet.url) as clients:
        assert (await clients.stream("alpha", 1)).is_whole
        home = until(lambda: [name for name, models in fleet.placed().items() if models])[0]
        started = [clients.begin("alpha", TOKENS) for _ in range(STREAMS)]
        await has_text(started[0][0])  # some have places, the others wait

        await asyncio.to_thread(leave, fleet, home)
        answers = await asyncio.gather(*(task for _, task in started))

    assert [str(answer) for answer in answers if not answer.is_whole] == []
    other = ({"left", "right"} - {home}).pop()
    until(lambda: fleet.placed()[other] == ["alpha"])
    moved = [line for line in fleet[other].lines("generation.ended") if line["moved_tokens"]]
    assert moved
    longest = max(answer.longest_gap for answer in answers)
    measured(f"{leave.__name__}: {len(moved)} streams moved, longest pause {longest:.2f} s")

"""A catalogue of two models, and what an operator is told of neurons and of who waits."""

from __future__ import annotations

from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import registry_service_pb2 as reg
from tests.doubles.registry_stand_ins import Fleet

TWO = """
[[models]]
id = "a"
source = "path:/a"
memory = "10MiB"
aliases = ["first"]
[[models]]
id = "b"
source = "path:/b"
memory = "10MiB"
"""


async def neurons(fleet: Fleet) -> dict[str, reg.Neuron]:
    """The neurons of the fleet, by name, as an operator is told of them."""
    answer = await fleet.operator.GetFleet(op.GetFleetRequest())
    return {n.identity.name: n for n in answer.neurons}


async def pending(fleet: Fleet, word: str) -> bool:
    """Whether somebody waits for a placement, told so with this word."""
    answer = await fleet.operator.GetFleet(op.GetFleetRequest())
    return any(word in p.step.queued.reason for p in answer.pending)

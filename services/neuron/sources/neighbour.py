"""Another neuron of the fleet, as a fetch is told of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from cortex.v1 import model_pb2 as model


@dataclasses.dataclass(frozen=True, slots=True)
class Neighbour:
    """Another neuron of the fleet, which may have files that are wanted.

    Attributes:
        name: as its certificate has to say.
        address: host:port of its services.
    """

    name: str
    address: str


def neighbours_of(messages: Iterable[model.Neighbour]) -> tuple[Neighbour, ...]:
    """Those that a message names."""
    return tuple(Neighbour(one.name, one.address) for one in messages)

"""The steps that a caller who waits for a model is told, and the interface of such a caller."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from services.backplane.errors import FleetError
from services.registry.fleet.records import LoadProgress


@dataclasses.dataclass(frozen=True, slots=True)
class Queued:
    """Nothing is done for it yet: other demands come first, or something must end before.

    Attributes:
        position: 1 is next.
        eta_seconds: until it is placed; None where nobody can tell.
        reason: what it waits for, in a sentence.
    """

    position: int
    eta_seconds: float | None
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Evicting:
    """Instances are being unloaded so that it fits. `eta_seconds`: until it is ready, if known."""

    neuron: str
    victim_models: tuple[str, ...]
    eta_seconds: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Loading:
    """The model is being loaded. `eta_seconds`: until it is ready; None where nobody can tell."""

    neuron: str
    progress: LoadProgress
    eta_seconds: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Placed:
    """The last step: requests go to `instance_id` at `address` of `neuron`."""

    neuron: str
    address: str
    instance_id: str
    model: str


Step = Queued | Evicting | Loading | Placed


class PlacementWaiter(Protocol):
    """A caller that waits for a placement. Neither method may block or raise."""

    def on_step(self, step: Step) -> None:
        """Takes the newest step; `Placed` is the last."""

    def on_failed(self, error: FleetError) -> None:
        """Takes the reason why it ends without a placement."""

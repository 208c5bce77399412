"""What placing has done for it: the seam to gRPC in production and to virtual time in tests."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Protocol

from services.registry.catalogue.profile import Profile
from services.registry.fleet.footprints import Learned


class UnloadReason(enum.Enum):
    """Why a copy is unloaded."""

    EVICTED = "evicted"
    IDLE = "idle"
    OUTDATED = "outdated"
    FAILED = "failed"
    DEFRAG = "defrag"
    OPERATOR = "operator"
    DRAIN = "drain"
    SURPLUS = "surplus"


@dataclasses.dataclass(frozen=True, slots=True)
class LoadOrder:
    """Load a model on devices of a neuron.

    Attributes:
        order_id: what progress and end are told with.
        incarnation_id: the neuron's; another one is not the neuron that was chosen.
        detach: the neuron finishes the load even if this registry dies.
    """

    order_id: int
    neuron: str
    incarnation_id: str
    address: str
    profile: Profile
    device_ids: tuple[str, ...]
    detach: bool


@dataclasses.dataclass(frozen=True, slots=True)
class UnloadOrder:
    """Drain and free one copy.

    Attributes:
        drain_seconds: how long running requests may take.
        for_model: which model needs the room; empty where none does.
        reason: the same for people, with numbers.
    """

    order_id: int
    neuron: str
    incarnation_id: str
    address: str
    instance_id: str
    model: str
    drain_seconds: float
    why: UnloadReason
    for_model: str = ""
    reason: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class LoadEnded:
    """A load came to its end.

    Attributes:
        failure: the reason's name; empty if the model is ready.
        learned: records that changed, for the store.
    """

    model: str
    neuron: str
    seconds: float
    failure: str = ""
    message: str = ""
    learned: Mapping[str, Learned] = dataclasses.field(default_factory=dict[str, Learned])


@dataclasses.dataclass(frozen=True, slots=True)
class UnloadEnded:
    """An unload came to its end."""

    order: UnloadOrder
    seconds: float
    freed_bytes: int
    failure: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class WaitEnded:
    """A caller's wait came to its end.

    Attributes:
        outcome: `placed`, `left`, or the reason's name.
    """

    model: str
    seconds: float
    outcome: str


@dataclasses.dataclass(frozen=True, slots=True)
class Redirected:
    """A placement no longer waits for running work: something else became free or idle.

    Attributes:
        neuron: where it waited; to_neuron: where it goes.
        seconds: how long the drain had lasted.
        reason: what there is now, for people.
    """

    model: str
    neuron: str
    to_neuron: str
    seconds: float
    reason: str


Event = LoadOrder | UnloadOrder | LoadEnded | UnloadEnded | WaitEnded | Redirected


class Effects(Protocol):
    """Carries orders out. No method blocks; ends come back by `PlacementController.on_…`."""

    def load(self, order: LoadOrder) -> None:
        """Begins a load. Ends in `on_load_ready` or `on_load_failed`, never in both."""

    def cancel_load(self, order_id: int) -> None:
        """Ends a load that is not wanted any more; nothing comes back for it."""

    def unload(self, order: UnloadOrder) -> None:
        """Begins an unload. Ends in `on_unloaded` or `on_unload_failed`."""

    def record(self, event: Event) -> None:
        """Takes note of what was decided or has ended: logs, metrics, store."""

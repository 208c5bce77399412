"""Orders to neurons: what they say, who carries them out, who hears how they end."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Protocol

from services.backplane.errors import FleetError
from services.backplane.security.principals import SYSTEM
from services.registry.catalogue.profile import Profile
from services.registry.fleet.footprints import Learned
from services.registry.fleet.records import Instance, LoadProgress
from services.registry.placement.neighbours import Neighbour


class UnloadReason(enum.Enum):
    """Why an instance is unloaded."""

    EVICTED = "evicted"
    IDLE = "idle"
    OUTDATED = "outdated"
    FAILED = "failed"
    DEFRAG = "defrag"
    OPERATOR = "operator"
    DRAIN = "drain"
    SURPLUS = "surplus"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoadOrder:
    """Load a model on devices of a neuron.

    Attributes:
        order_id: by which progress and end are told.
        incarnation_id: of the neuron's process; a restarted neuron is not the one chosen.
        principal: whose request caused it, and who is charged for it.
        needs: bytes by device that were found free for it.
        detach: the neuron finishes the load even if this registry dies.
        neighbours: that may have the files.
    """

    order_id: int
    neuron: str
    incarnation_id: str
    address: str
    profile: Profile
    device_ids: tuple[str, ...]
    principal: str
    needs: Mapping[str, int]
    detach: bool
    neighbours: tuple[Neighbour, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class FollowingLoad:
    """The load for which an instance is unloaded, so that its neuron can prepare it."""

    profile: Profile
    device_ids: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UnloadOrder:
    """Drain and free one instance.

    Attributes:
        drain_seconds: how long running requests may take.
        for_model: which model needs the room; empty where none does.
        reason: why, for people, with numbers.
        following: what will be loaded in its place; None: nothing that is known.
        principal: whose request caused it, and who is charged for it.
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
    following: FollowingLoad | None = None
    principal: str = SYSTEM


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class UpdateOrder:
    """Changes settings of an instance that need no load, such as the sampling of requests."""

    order_id: int
    neuron: str
    incarnation_id: str
    address: str
    instance_id: str
    profile: Profile


@dataclasses.dataclass(frozen=True, slots=True)
class LoadEnded:
    """A load has ended.

    Attributes:
        failure: the reason's name; empty if the model is ready.
        learned: records that changed, for the store.
    """

    model: str
    neuron: str
    seconds: float
    _: dataclasses.KW_ONLY
    failure: str = ""
    message: str = ""
    learned: Mapping[str, Learned] = dataclasses.field(default_factory=dict[str, Learned])


@dataclasses.dataclass(frozen=True, slots=True)
class UnloadEnded:
    """An unload has ended; `failure` is the reason's name, empty where it succeeded."""

    order: UnloadOrder
    seconds: float
    freed_bytes: int
    failure: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class WaitEnded:
    """A caller no longer waits for a placement.

    Attributes:
        outcome: `placed`, `left`, or the reason's name.
    """

    model: str
    seconds: float
    outcome: str


@dataclasses.dataclass(frozen=True, slots=True)
class Redirected:
    """A demand no longer waits for a drain: something else became free or idle.

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


@dataclasses.dataclass(frozen=True, slots=True)
class NeuronLost:
    """A neuron has said nothing within its lease."""

    neuron: str


Event = (
    LoadOrder
    | UnloadOrder
    | UpdateOrder
    | LoadEnded
    | UnloadEnded
    | WaitEnded
    | Redirected
    | NeuronLost
)


class OrderListener(Protocol):
    """Receives the results of orders; ignores orders that it no longer knows."""

    def on_load_progress(self, order_id: int, progress: LoadProgress) -> None:
        """A load says how far it is."""

    def on_load_ready(self, order_id: int, instance: Instance) -> None:
        """A load has ended well: the instance is ready."""

    def on_load_failed(self, order_id: int, error: FleetError) -> None:
        """A load has ended without an instance."""

    def on_unloaded(self, order_id: int, freed_bytes: int) -> None:
        """An instance is gone."""

    def on_unload_failed(self, order_id: int, error: FleetError) -> None:
        """An instance could not be unloaded."""


class Effects(Protocol):
    """Carries orders out: over gRPC in production, in virtual time in the simulator.

    No method waits. How orders end is told to an `OrderListener`.
    """

    def load(self, order: LoadOrder) -> None:
        """Begins a load. Ends in `on_load_ready` or `on_load_failed`, never in both."""

    def cancel_load(self, order_id: int) -> None:
        """Ends a load that is not wanted any more; nothing comes back for it."""

    def unload(self, order: UnloadOrder) -> None:
        """Begins an unload. Ends in `on_unloaded` or `on_unload_failed`."""

    def update(self, order: UpdateOrder) -> None:
        """Begins an update. Nothing comes back; the neuron's reports show it."""

    def record(self, event: Event) -> None:
        """Logs and counts what was decided or has ended."""

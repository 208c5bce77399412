"""The question that the scheduler answers, and the shape of its answer."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Mapping

from services.registry.catalogue.profile import Profile
from services.registry.fleet.footprints import Footprint
from services.registry.fleet.policy import Strategy
from services.registry.scheduler import filters
from services.registry.scheduler.eviction import Incoming
from services.registry.scheduler.filters import Needs
from services.registry.scheduler.neuron_info import InstanceInfo


class PlacementOutcome(enum.IntEnum):
    """Answer of one neuron to a placement request, from the best kind to the worst."""

    FREE_FIT = 1
    EVICT = 2
    DRAIN = 3
    WAIT = 4
    UNAVAILABLE = 5
    """It could run there, but the neuron takes nothing for now."""
    BLOCKED = 6
    """It could run there, were what is there not protected from it."""
    IMPOSSIBLE = 7


PLACEABLE = frozenset({PlacementOutcome.FREE_FIT, PlacementOutcome.EVICT, PlacementOutcome.DRAIN})


@dataclasses.dataclass(frozen=True, slots=True)
class PlacementRequest:
    """A model that is to be placed, and under which rules.

    Attributes:
        now: seconds on the monotonic clock.
        may_drain: it has waited so long that busy instances may be drained for it.
        avoided: neurons that just failed it, with the reason.
        only_neuron: the one an operator or a pin names; empty for any.
        load_seconds: expected load time on a neuron.
        may_evict: False where only free room is wanted.
        reserved: device ids, by neuron, that are kept for a demand that has waited longer.
    """

    profile: Profile
    footprint: Footprint
    now: float
    load_seconds: Callable[[str], float]
    strategy: Strategy = Strategy.LRU
    may_drain: bool = False
    avoided: dict[str, str] = dataclasses.field(default_factory=dict[str, str])
    only_neuron: str = ""
    may_evict: bool = True
    reserved: Mapping[str, frozenset[str]] = dataclasses.field(
        default_factory=dict[str, frozenset[str]]
    )

    needs: Needs = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "needs", filters.needs_of(self.profile, self.footprint))

    @property
    def incoming(self) -> Incoming:
        """The part of the request that decides about evictions."""
        return Incoming(self.profile.residency_class, self.may_drain, self.now, self.strategy)


@dataclasses.dataclass(frozen=True, slots=True)
class PlacementCandidate:
    """One neuron that was looked at, and what it offers.

    Attributes:
        reason: why it was refused, or what makes it possible, in a sentence.
        free_bytes: on the chosen devices, or on the roomiest where none was chosen.
        predicted_seconds: until the model would be ready there.
        retry_at: when waiting may have an end, where the clock decides that; else None.
    """

    neuron: str
    outcome: PlacementOutcome
    reason: str
    device_ids: tuple[str, ...] = ()
    need_bytes: int = 0
    free_bytes: int = 0
    victims: tuple[InstanceInfo, ...] = ()
    waits_for: tuple[InstanceInfo, ...] = ()
    predicted_seconds: float = 0.0
    retry_at: float | None = None
    rank: tuple[object, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class PlacementDecision:
    """What to do with a model.

    Attributes:
        outcome: of the best candidate; IMPOSSIBLE where there is none.
        best: it, or None.
        candidates: all that were looked at; `decide` stops looking when it knows enough.
        retry_at: the earliest end of a wait that the clock decides, or None.
    """

    outcome: PlacementOutcome
    best: PlacementCandidate | None
    candidates: tuple[PlacementCandidate, ...]
    retry_at: float | None = None

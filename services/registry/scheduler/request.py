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
from services.registry.scheduler.neuron_info import DeviceInfo, InstanceInfo, NeuronInfo
from services.registry.scheduler.spread import Spread, kind_of, spreads_on, whole_spreads


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
        load_seconds: expected load time on a neuron, where such a share of the model's files is in
            its page cache.
        may_evict: False where only free room is wanted.
        reserved: device ids, by neuron, that are kept for a demand that has waited longer.
        kind: of devices that the model goes to; empty for GPUs, else the CPU.
        whole: the ways to put all of it on devices.
    """

    profile: Profile
    footprint: Footprint
    now: float
    load_seconds: Callable[[str, float], float]
    strategy: Strategy = Strategy.LRU
    may_drain: bool = False
    avoided: dict[str, str] = dataclasses.field(default_factory=dict[str, str])
    only_neuron: str = ""
    may_evict: bool = True
    reserved: Mapping[str, frozenset[str]] = dataclasses.field(
        default_factory=dict[str, frozenset[str]]
    )

    kind: str = dataclasses.field(init=False)
    whole: tuple[Spread, ...] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", kind_of(self.profile, self.footprint))
        object.__setattr__(self, "whole", whole_spreads(self.profile, self.footprint))

    @property
    def least_bytes(self) -> int:
        """Least free bytes of a device that could take any part of the model."""
        least = min(spread.need_bytes for spread in self.whole)
        layers = self.footprint.layers
        return min(least, self.footprint.gpu_bytes // layers) if layers else least

    def spreads_on(self, neuron_info: NeuronInfo) -> tuple[Spread, ...]:
        """The ways to spread the model over the devices of one neuron."""
        return spreads_on(self.profile, self.footprint, self.whole, neuron_info)

    def is_open(self, neuron_info: NeuronInfo, device: DeviceInfo) -> bool:
        """True if a load of the model may begin on a device now."""
        reserved = self.reserved.get(neuron_info.neuron, ())
        return not (device.busy or device.quarantine or device.device_id in reserved)

    def is_possible(self, neuron_info: NeuronInfo) -> bool:
        """True if the model could run there were nothing else loaded."""
        return filters.is_possible(self.profile, self.footprint, self.whole, neuron_info)

    @property
    def incoming(self) -> Incoming:
        """The part of the request that decides about evictions."""
        return Incoming(self.profile.residency_class, self.may_drain, self.now, self.strategy)


@dataclasses.dataclass(frozen=True, slots=True)
class PlacementCandidate:
    """One neuron that was looked at, and what it offers.

    Attributes:
        reason: why it was refused, or what makes it possible, in a sentence.
        device_ids: that the load has to itself while it is under way.
        needs: bytes by device, what is beside them in the host's memory among it.
        free_bytes: on the chosen devices, or on the roomiest where none was chosen.
        predicted_seconds: until the model would be ready there.
        retry_at: when waiting may have an end, where the clock decides that; else None.
    """

    neuron: str
    outcome: PlacementOutcome
    reason: str
    device_ids: tuple[str, ...] = ()
    needs: Mapping[str, int] = dataclasses.field(default_factory=dict[str, int])
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

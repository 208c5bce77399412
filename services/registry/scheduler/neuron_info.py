"""One neuron as the scheduler sees it: what is free, what is loaded, what may not be evicted."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Final

from services.registry.fleet.records import InstanceState

# What a model may ask of its devices; empty is any.
KINDS: Final = ("", "cuda", "gpu", "cpu")


@dataclasses.dataclass(frozen=True, slots=True)
class DeviceInfo:
    """One device of a neuron.

    Attributes:
        capacity_bytes: what placements may use when nothing is loaded.
        free_bytes: what they may use now, by the neuron's own measurement.
        busy: why no load may begin on it now; empty where one may.
        quarantine: why it takes no work at all; empty where it does.
    """

    device_id: str
    kind: str
    capacity_bytes: int
    free_bytes: int
    _: dataclasses.KW_ONLY
    busy: str = ""
    quarantine: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class InstanceInfo:
    """One loaded instance, as a candidate for eviction.

    Attributes:
        memory: bytes by device id.
        last_used: on the registry's monotonic clock.
        protected_until: on the same clock; minimum residency, and hand-overs under way.
        is_pinned: never goes.
        is_kept: one of the model's minimum of replicas: only a higher class displaces it.
        is_surplus: useless: failed, or of an outdated revision; protected by nothing.
    """

    instance_id: str
    model: str
    state: InstanceState
    memory: Mapping[str, int]
    _: dataclasses.KW_ONLY
    residency_class: int
    in_flight: int
    last_used: float
    protected_until: float
    is_pinned: bool = False
    is_kept: bool = False
    is_surplus: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class NeuronInfo:
    """One neuron, as of its newest report and of the orders that are under way.

    Attributes:
        refusal: why nothing may be placed on it for now; empty where something may.
        is_known: False until it has reported its devices; what it could run is not known.
        stored: models and sources on its disk.
        work: requests in flight on all of its instances.
        models: of which it has instances.
        capacities: of the devices that a model of a kind (`cuda`, `cpu`, empty for any) may use,
            largest first; open_free: what is free on those of them where a load may begin now.
            Both are derived, so that a look at thousands of neurons stays cheap.
    """

    neuron: str
    refusal: str = ""
    is_known: bool = True
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    engines: tuple[str, ...] = ()
    stored: frozenset[str] = frozenset()
    devices: tuple[DeviceInfo, ...] = ()
    instances: tuple[InstanceInfo, ...] = ()
    work: int = 0
    models: frozenset[str] = frozenset()
    capacities: Mapping[str, tuple[int, ...]] = dataclasses.field(init=False, compare=False)
    open_free: Mapping[str, tuple[int, ...]] = dataclasses.field(init=False, compare=False)

    def __post_init__(self) -> None:
        capacities: dict[str, tuple[int, ...]] = {}
        open_free: dict[str, tuple[int, ...]] = {}
        for kind in KINDS:
            devices = self.devices_of(kind)
            able = [d for d in devices if d.capacity_bytes > 0]
            capacities[kind] = _largest_first(d.capacity_bytes for d in able)
            open_free[kind] = _largest_first(
                d.free_bytes for d in able if not (d.busy or d.quarantine)
            )
        object.__setattr__(self, "capacities", capacities)
        object.__setattr__(self, "open_free", open_free)

    def devices_of(self, kind: str) -> tuple[DeviceInfo, ...]:
        """The devices that a model of a kind may use. Two kinds never share one model."""
        for wanted in (kind,) if kind else ("cuda", "gpu"):
            devices = tuple(d for d in self.devices if d.kind == wanted)
            if devices or kind:
                return devices
        return self.devices


def _largest_first(figures: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(figures, reverse=True))

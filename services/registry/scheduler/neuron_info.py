"""One neuron as the scheduler sees it: what is free, what is loaded, what may not be evicted."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from services.registry.catalogue.profile import Profile
from services.registry.fleet.records import CPU, InstanceState

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
        make: devices of one make are equal.
    """

    device_id: str
    kind: str
    capacity_bytes: int
    free_bytes: int
    _: dataclasses.KW_ONLY
    busy: str = ""
    quarantine: str = ""
    make: str = ""


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
        device_ids: that it is computed on; empty: all that it has memory of.
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
    device_ids: frozenset[str] = frozenset()

    def is_on(self, device_ids: Collection[str]) -> bool:
        """True if it is computed on one of these devices."""
        own = self.device_ids or self.memory.keys()
        return any(device_id in own for device_id in device_ids)


@dataclasses.dataclass(frozen=True, slots=True)
class NeuronInfo:
    """One neuron, as of its newest report and of the orders that are under way.

    Attributes:
        refusal: why nothing may be placed on it for now; empty where something may.
        is_known: False until it has reported its devices; what it could run is not known.
        stored: models and sources on its disk.
        resident: of those whose files are in its page cache, the share that is.
        work: requests in flight on all of its instances.
        models: of which it has instances.
        coming: models that are about to be loaded there, or whose load is being ended.
        capacities: of the devices that a model of a kind (`cuda`, `cpu`, empty for any) may use,
            largest first; open_free: what is free on those of them where a load may begin now.
        has_gpu: it has a GPU, and models of any kind go there.
        host_capacity: of the host's own memory; -1 where it is no device.
            All four are derived, so that a look at thousands of neurons stays cheap.
    """

    neuron: str
    refusal: str = ""
    is_known: bool = True
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict[str, str])
    engines: tuple[str, ...] = ()
    stored: frozenset[str] = frozenset()
    resident: Mapping[str, float] = dataclasses.field(default_factory=dict[str, float])
    devices: tuple[DeviceInfo, ...] = ()
    instances: tuple[InstanceInfo, ...] = ()
    work: int = 0
    models: frozenset[str] = frozenset()
    coming: frozenset[str] = frozenset()
    capacities: Mapping[str, tuple[int, ...]] = dataclasses.field(init=False, compare=False)
    open_free: Mapping[str, tuple[int, ...]] = dataclasses.field(init=False, compare=False)
    has_gpu: bool = dataclasses.field(init=False, compare=False)
    host_capacity: int = dataclasses.field(init=False, compare=False)

    def __post_init__(self) -> None:
        host = self.host
        object.__setattr__(self, "host_capacity", -1 if host is None else host.capacity_bytes)
        object.__setattr__(self, "has_gpu", any(d.device_id != CPU for d in self.devices))
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

    @property
    def host(self) -> DeviceInfo | None:
        """The host's own memory, where it is a device."""
        return next((d for d in self.devices if d.device_id == CPU), None)

    def wishes_met(self, profile: Profile) -> int:
        """Score of a model's preferences here: more is better, may be negative.

        Labels that it prefers; less the models there that it should not be beside.
        """
        met = 0
        if profile.affinity:
            met = sum(self.labels.get(key) == value for key, value in profile.affinity.items())
        if profile.rather_apart_from:
            there = self.models | self.coming
            met -= sum(model in there for model in profile.rather_apart_from)
        return met

    def has_files(self, profile: Profile) -> bool:
        """True if a model's files are on the neuron's disk."""
        return profile.model in self.stored or profile.terms.source in self.stored

    def resident_share(self, profile: Profile) -> float:
        """Share (0 to 1) of a model's files in the neuron's page cache, read without the disk."""
        resident = self.resident
        return max(resident.get(profile.model, 0.0), resident.get(profile.terms.source, 0.0))

    def files_told(self, profile: Profile) -> str:
        """Where a model's files are, as a text for people; empty if not on the neuron's disk."""
        if not self.has_files(profile):
            return ""
        resident = self.resident_share(profile)
        return "its files are there" + (f", {resident:.0%} of them in memory" if resident else "")

    def of_one_make(self) -> NeuronInfo:
        """The same neuron with only its largest set of equal GPUs (a tie: the most memory)."""
        makes: dict[str, list[DeviceInfo]] = {}
        for device in self.devices_of("cuda"):
            makes.setdefault(device.make, []).append(device)
        best = max(
            makes.values(), key=lambda alike: (len(alike), alike[0].capacity_bytes), default=()
        )
        return dataclasses.replace(self, devices=tuple(best))

    def devices_of(self, kind: str) -> tuple[DeviceInfo, ...]:
        """The devices that a model of a kind may use. Two kinds never share one model."""
        for wanted in (kind,) if kind else ("cuda", "gpu"):
            devices = tuple(d for d in self.devices if d.kind == wanted)
            if devices or kind:
                return devices
        return self.devices


def _largest_first(figures: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(figures, reverse=True))

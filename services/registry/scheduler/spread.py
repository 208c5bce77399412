"""The ways to spread a model over the devices of a neuron. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from services.backplane.units import format_bytes
from services.registry.catalogue.profile import Profile
from services.registry.fleet.footprints import Footprint
from services.registry.fleet.records import CPU
from services.registry.scheduler.neuron_info import DeviceInfo, NeuronInfo


@dataclasses.dataclass(frozen=True, slots=True)
class Spread:
    """One way to spread a model over devices.

    Attributes:
        count: of devices.
        need_bytes: that each of them must have free.
        host_bytes: that the host must have free beside them.
        layers: on the devices, of a model part of which is computed on the host; 0: all are.
    """

    count: int
    need_bytes: int
    host_bytes: int = 0
    layers: int = 0

    def taken(self, devices: Sequence[DeviceInfo]) -> tuple[str, ...]:
        """The devices that a load reserves: the host too where it computes some layers."""
        return (*(d.device_id for d in devices), *([CPU] if self.layers else []))

    def needs(self, devices: Sequence[DeviceInfo], host: DeviceInfo | None) -> dict[str, int]:
        """Bytes needed by device id, the host's memory included."""
        needs = {d.device_id: self.need_bytes for d in devices}
        if self.host_bytes and host is not None:
            needs[host.device_id] = self.host_bytes
        return needs

    def described(self, layers: int) -> str:
        """The memory that this way takes, as a text for people.

        Args:
            layers: that the model has.
        """
        need, host = format_bytes(self.need_bytes), format_bytes(self.host_bytes)
        each = f"{need} on each of {self.count} devices" if self.count > 1 else need
        if self.layers:
            return f"{each} for {self.layers} of {layers} layers, and {host} on the host for others"
        return f"{each}, and {host} on the host" if self.host_bytes >> 20 else each


def kind_of(profile: Profile, footprint: Footprint) -> str:
    """The kind of devices that a model goes to: the CPU, or empty for GPUs."""
    return profile.device_kind or ("cpu" if footprint.is_for_host else "")


def whole_spreads(profile: Profile, footprint: Footprint) -> tuple[Spread, ...]:
    """The ways to put the whole model on GPUs, or devices of any kind. Fewest devices first."""
    fewest = max(2, profile.devices) if profile.is_divided else profile.devices
    counts = range(fewest, profile.max_devices + 1)
    host = footprint.host_bytes
    return tuple(Spread(count, footprint.per_device(count), host) for count in counts)


def spreads_on(
    profile: Profile, footprint: Footprint, whole: tuple[Spread, ...], neuron_info: NeuronInfo
) -> tuple[Spread, ...]:
    """The ways to spread a model over the devices of one neuron, the best first.

    1. All of it on GPUs, with what is never on one in the host's memory.
    2. On a host without GPUs all of it there.
    3. A GGUF model of which the GPUs, were they empty, could not hold all layers: as many as they
       can, and the rest on the host.

    Args:
        profile: the model.
        footprint: what it needs.
        whole: as `whole_spreads` gives it.
        neuron_info: where.
    """
    if not (footprint.host_bytes or footprint.layers):
        return whole
    kind = kind_of(profile, footprint)
    sizes = usable(profile, neuron_info).capacities[kind]
    if kind == "cpu" or not neuron_info.has_gpu:
        return (Spread(1, footprint.total_bytes),)
    if footprint.layers < 2 or any_fits(whole, sizes, neuron_info.host_capacity):  # noqa: PLR2004
        return whole
    layer = max(1, -(-footprint.gpu_bytes // footprint.layers))
    best = whole
    most = 0
    for count in range(1, min(profile.max_devices, len(sizes)) + 1):
        each = sizes[count - 1] // layer
        layers = min(count * each, footprint.layers - 1)
        if layers > most:
            rest = footprint.total_bytes - layers * layer
            most, best = layers, (Spread(count, -(-layers // count) * layer, rest, layers),)
    return best


def usable(profile: Profile, neuron_info: NeuronInfo) -> NeuronInfo:
    """The neuron with only the devices that a model could be spread over."""
    return neuron_info.of_one_make() if profile.is_divided else neuron_info


def any_fits(spreads: tuple[Spread, ...], figures: tuple[int, ...], host_bytes: int) -> bool:
    """True if one of the ways to spread a model fits.

    Args:
        spreads: the ways.
        figures: sizes of devices, largest first.
        host_bytes: of the host's memory; -1 where it is no device: then it can take no layers, and
            what little else is there is not asked.
    """
    most = len(figures)
    for spread in spreads:  # asked thousands of times; a generator costs double
        if most < spread.count or figures[spread.count - 1] < spread.need_bytes:
            continue
        if host_bytes >= spread.host_bytes or (host_bytes < 0 and not spread.layers):
            return True
    return False

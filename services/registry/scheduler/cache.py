"""Makes a `NeuronInfo` of each member, and keeps it until something about it changes."""

from __future__ import annotations

from typing import Final

from services.registry.fleet.records import CPU, Instance, InstanceState, Member
from services.registry.fleet.state import FleetState
from services.registry.scheduler.index import NeuronIndex
from services.registry.scheduler.neuron_info import DeviceInfo, InstanceInfo, NeuronInfo

# What may not overlap with a load on the same device: figures are about to change, or the worker
# is at it. An instance that drains only holds what it has, perhaps for an hour.
_LOADS_BEGIN_LATER: Final = {
    InstanceState.LOADING: "loading",
    InstanceState.UNLOADING: "unloading",
    InstanceState.RECOVERING: "recovering",
}


class SchedulerCache:
    """What the scheduler sees of each neuron; made anew when asked for after a change.

    Whoever changes something about a neuron calls `forget`.
    """

    def __init__(self, fleet_state: FleetState) -> None:
        self._fleet_state = fleet_state
        self._index = NeuronIndex(fleet_state.policy.strategy)
        self._stale: dict[str, None] = dict.fromkeys(fleet_state.fleet.members)
        self._busy: dict[str, dict[str, str]] = {}
        self._coming: dict[str, dict[str, str]] = {}
        self._promised: dict[str, dict[int, int]] = {}
        self._leaving: set[str] = set()

    @property
    def index(self) -> NeuronIndex:
        """All neurons as they are now, sorted in the ways in which the scheduler reads them."""
        while self._stale:
            name, _ = self._stale.popitem()
            member = self._fleet_state.fleet.members.get(name)
            if member is None:
                self._index.discard(name)
            else:
                self._index.put(self._make(member))
        return self._index

    def of(self, name: str) -> NeuronInfo:
        """What the scheduler knows of one neuron."""
        neuron_info = self._index.get(name)
        if neuron_info is None or name in self._stale:
            self._stale.pop(name, None)
            neuron_info = self._make(self._fleet_state.fleet.members[name])
            self._index.put(neuron_info)
        return neuron_info

    def forget(self, name: str) -> None:
        """The neuron has changed, has come or has left."""
        self._stale[name] = None

    def forget_all(self) -> None:
        """Drops all that was computed: pins, catalogue or policy have changed."""
        self._stale.update(dict.fromkeys(self._fleet_state.fleet.members))

    def occupy(self, name: str, device_ids: tuple[str, ...], why: str, *, model: str) -> None:
        """Reserves devices for a load, so that no other begins there.

        Args:
            name: the neuron.
            device_ids: that the load has to itself.
            why: what is done there, for people.
            model: that may be on the neuron soon.
        """
        self._busy.setdefault(name, {}).update(dict.fromkeys(device_ids, why))
        self._coming.setdefault(name, {}).update(dict.fromkeys(device_ids, model))
        self.forget(name)

    def release(self, name: str, device_ids: tuple[str, ...]) -> None:
        """Frees devices that a load had reserved."""
        for reserved in (self._busy, self._coming):
            devices = reserved.get(name, {})
            for device in device_ids:
                devices.pop(device, None)
            if not devices:
                reserved.pop(name, None)
        self.forget(name)

    def promise(self, name: str, order_id: int, host_bytes: int) -> None:
        """Reserves host memory for a load that has been ordered, until `redeem`.

        Loads to several devices of a host run at one time, and share that: the host too is open to
        what loads to GPUs keep there while another load is computed on it.
        """
        if host_bytes:
            self._promised.setdefault(name, {})[order_id] = host_bytes
            self.forget(name)

    def redeem(self, name: str, order_id: int) -> None:
        """Releases the host memory reserved for a load: reports show now what it took."""
        promised = self._promised.get(name, {})
        if promised.pop(order_id, 0):
            self.forget(name)
        if not promised:
            self._promised.pop(name, None)

    def leaving(self, name: str, instance_id: str, *, is_leaving: bool) -> None:
        """Notes that an instance is being unloaded by our order, or no longer is.

        The neuron's reports may be a moment behind.
        """
        (self._leaving.add if is_leaving else self._leaving.discard)(instance_id)
        self.forget(name)

    def is_leaving(self, instance_id: str) -> bool:
        """True if an unload of the instance is under way by our order."""
        return instance_id in self._leaving

    def _make(self, member: Member) -> NeuronInfo:
        instances = tuple(self._instance_info(member, i) for i in member.report.instances)
        identity, report = member.identity, member.report
        stored = {s.model for s in report.stored} | {s.source for s in report.stored}
        return NeuronInfo(
            member.name,
            refusal=_refusal(member),
            is_known=member.reported_epoch > 0,
            labels=identity.labels,
            engines=identity.engines,
            stored=frozenset(stored - {""}),
            resident=report.resident,
            devices=self._devices(member),
            instances=instances,
            work=sum(i.in_flight for i in report.instances),
            models=frozenset(i.model for i in report.instances),
            coming=frozenset(self._coming.get(member.name, {}).values()),
        )

    def _devices(self, member: Member) -> tuple[DeviceInfo, ...]:
        held: dict[str, int] = {}
        busy = dict(self._busy.get(member.name, ()))
        for instance in member.report.instances:
            verb = _LOADS_BEGIN_LATER.get(instance.state)
            for device_id, count in instance.memory.items():
                held[device_id] = held.get(device_id, 0) + count
            if verb:
                for device_id in {*instance.memory, *instance.device_ids}:
                    busy.setdefault(device_id, f"{verb} {instance.model}")
        devices: list[DeviceInfo] = []
        for each in member.report.devices:
            capacity = max(0, each.total_bytes - each.reserved_bytes)
            ours = capacity - held.get(each.device_id, 0)
            is_host = each.device_id == CPU
            promised = sum(self._promised.get(member.name, {}).values()) if is_host else 0
            devices.append(
                DeviceInfo(
                    each.device_id,
                    each.kind,
                    capacity,
                    max(0, min(each.free_bytes, ours) - promised),
                    busy=busy.get(each.device_id, ""),
                    quarantine=each.quarantine_reason,
                    make=f"{each.name} {each.total_bytes}",
                )
            )
        return tuple(devices)

    def _instance_info(self, member: Member, instance: Instance) -> InstanceInfo:
        fleet_state = self._fleet_state
        profile = fleet_state.profile(instance.model)
        record = fleet_state.activity.of(instance.instance_id)
        state = instance.state
        if instance.instance_id in self._leaving and state is InstanceState.READY:
            state = InstanceState.DRAINING
        stale = profile is not None and not profile.matches(instance.config_revision)
        return InstanceInfo(
            instance.instance_id,
            instance.model,
            state,
            instance.memory,
            residency_class=profile.residency_class if profile else 0,
            in_flight=instance.in_flight,
            last_used=record.last_used if record else 0.0,
            protected_until=fleet_state.protected_until(instance),
            is_pinned=profile is not None and fleet_state.is_pinned(profile),
            is_kept=profile is not None and self._is_kept(profile.model, member),
            is_surplus=stale or state is InstanceState.FAILED,
            device_ids=_computed_on(instance),
        )

    def _is_kept(self, model: str, member: Member) -> bool:
        fleet_state = self._fleet_state
        profile = fleet_state.profile(model)
        if profile is None or not (least := fleet_state.wanted_instances(profile)):
            return False
        ready = sum(
            fleet_state.is_routable(profile, holder, i)
            for holder, i in fleet_state.fleet.instances_of(model)
        )
        return ready <= least and member.can_serve


def _computed_on(instance: Instance) -> frozenset[str]:
    """The devices that compute an instance: the host only where none does, or it has layers."""
    device_ids = {*instance.device_ids, *instance.memory}
    may_have_layers = instance.state is InstanceState.LOADING and CPU in instance.device_ids
    if device_ids - {CPU} and not (instance.layers_left or may_have_layers):
        device_ids.discard(CPU)
    return frozenset(device_ids)


def _refusal(member: Member) -> str:
    if member.is_lost:
        return "it is lost: no report within its lease"
    if not member.has_reported:
        return "it has just attached and has not reported yet"
    if member.report.is_draining:
        return "it is about to stop"
    if member.is_cordoned:
        return "it is cordoned"
    return ""

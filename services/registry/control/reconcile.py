"""What the fleet needs done without anybody waiting for it. Pure; looked at about once a second.

Idle copies go, outdated ones go when their work is done, worn workers are recycled when idle,
pins and minimum replicas are kept, preloads are loaded once, and full models get another copy
where there is free room.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from services.registry.catalogue.profile import Profile
from services.registry.control.ready import ReadyInstances
from services.registry.fleet.records import Instance, InstanceState, Member
from services.registry.fleet.state import FleetState
from services.registry.placement.orders import UnloadReason


@dataclasses.dataclass(frozen=True, slots=True)
class Removal:
    """A copy that should go."""

    neuron: str
    instance: Instance
    why: UnloadReason
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Want:
    """Copies that should be there."""

    profile: Profile
    replicas: int
    neuron: str = ""
    may_evict: bool = False


def to_remove(
    fleet_state: FleetState, ready_instances: ReadyInstances, now: float
) -> Iterator[Removal]:
    """Copies that should go, none of which has work or a caller on its way."""
    for member in list(fleet_state.fleet.members.values()):
        if not member.can_serve:
            continue
        worn = _worn_devices(fleet_state, member)
        for instance in member.report.instances:
            removal = _removal(fleet_state, ready_instances, member, instance, worn, now)
            if removal is not None:
                yield removal


def _removal(
    fleet_state: FleetState,
    ready_instances: ReadyInstances,
    member: Member,
    instance: Instance,
    worn: frozenset[str],
    now: float,
) -> Removal | None:
    if instance.state is not InstanceState.READY or instance.in_flight:
        return None
    profile = fleet_state.profile(instance.model)
    record = fleet_state.activity.of(instance.instance_id)
    if profile is None or record is None or record.held_until > now:
        return None
    idle = now - record.last_used
    if not profile.matches(instance.config_revision):
        reason = "its catalogue entry has changed"
        return Removal(member.name, instance, UnloadReason.OUTDATED, reason)
    if worn & instance.memory.keys() and idle >= fleet_state.policy.minimum_residency:
        cycles = fleet_state.policy.defrag_after_cycles
        reason = f"its worker has been through {cycles} loads and unloads or more"
        return Removal(member.name, instance, UnloadReason.DEFRAG, reason)
    if idle >= fleet_state.idle_timeout(profile, record) and not fleet_state.is_pinned(profile):
        replicas = len(ready_instances.routable(profile))
        if replicas > fleet_state.wanted_instances(profile):
            return Removal(member.name, instance, UnloadReason.IDLE, f"unused for {idle:.0f} s")
    return None


def _worn_devices(fleet_state: FleetState, member: Member) -> frozenset[str]:
    """Devices whose worker is due for recycling and has no work at all."""
    limit = fleet_state.policy.defrag_after_cycles
    if not limit:
        return frozenset()
    working = {d for i in member.report.instances if i.in_flight for d in i.memory}
    return frozenset(
        device
        for worker in member.report.workers
        if worker.is_running
        and worker.load_cycles >= limit
        and not working.intersection(worker.device_ids)
        for device in worker.device_ids
    )


def to_add(
    fleet_state: FleetState, ready_instances: ReadyInstances, preloaded: set[str], now: float
) -> Iterator[Want]:
    """Copies that should be there and are not.

    Args:
        fleet_state: the fleet and the rules.
        ready_instances: counts what is routable.
        preloaded: models whose preload is done; those found loaded are added.
        now: seconds on the monotonic clock.
    """
    names = set(fleet_state.pins)
    configured = fleet_state.catalogue.profiles
    names.update(m for m, p in configured.items() if p.min_replicas or p.preload or p.pinned)
    names.update(m for m, p in configured.items() if p.max_replicas > 1)
    for name in sorted(names):
        profile = fleet_state.profile(name)
        if profile is None:
            continue
        neuron = fleet_state.pins.get(profile.model, "")
        if neuron and not ready_instances.routable(profile, neuron):
            yield Want(profile, 1, neuron, may_evict=True)
            continue
        replicas = len(ready_instances.routable(profile))
        wanted = fleet_state.wanted_instances(profile)
        if profile.preload and profile.model not in preloaded:
            if replicas:
                preloaded.add(profile.model)
            wanted = max(wanted, 1)
        if replicas < wanted:
            yield Want(
                profile, replicas + 1, may_evict=fleet_state.wanted_instances(profile) > replicas
            )
        elif replicas < profile.max_replicas and _all_full(
            fleet_state, ready_instances, profile, now
        ):
            yield Want(profile, replicas + 1)


def _all_full(
    fleet_state: FleetState, ready_instances: ReadyInstances, profile: Profile, now: float
) -> bool:
    records = [fleet_state.activity.of(i.instance_id) for _, i in ready_instances.routable(profile)]
    after = fleet_state.policy.scale_up_after
    return bool(records) and all(
        r is not None and r.full_since is not None and now - r.full_since >= after for r in records
    )

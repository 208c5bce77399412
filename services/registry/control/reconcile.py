"""What the fleet needs done without anybody waiting for it. Looked at about once a second."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator

from services.registry.catalogue.profile import Profile
from services.registry.control.ready import ReadyInstances
from services.registry.fleet.records import Instance, InstanceState, Member
from services.registry.fleet.state import FleetState
from services.registry.placement.orders import UnloadReason


@dataclasses.dataclass(frozen=True, slots=True)
class Removal:
    """An instance that should be unloaded; `reason` is for people."""

    neuron: str
    instance: Instance
    why: UnloadReason
    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class Stale:
    """An instance whose catalogue entry has changed in what needs no load, such as sampling."""

    neuron: str
    instance: Instance
    profile: Profile


@dataclasses.dataclass(frozen=True, slots=True)
class Want:
    """How many instances of a model there should be.

    Attributes:
        neuron: where; empty for anywhere.
        may_evict: False where only free devices are used for it.
    """

    profile: Profile
    replicas: int
    neuron: str = ""
    may_evict: bool = False


class Reconciler:
    """Compares what is loaded with what should be."""

    def __init__(self, fleet_state: FleetState, ready_instances: ReadyInstances) -> None:
        self._fleet_state = fleet_state
        self._ready_instances = ready_instances
        self._preloaded: set[str] = set()

    def preload_again(self, models: Collection[str]) -> None:
        """These models' catalogue entries have changed: what they ask to preload is loaded anew."""
        self._preloaded.difference_update(models)

    # -- what should go -----------------------------------------------------------------------

    def to_remove(self, now: float) -> Iterator[Removal]:
        """Instances that should be unloaded.

        Only instances go that are ready, have no work and no caller on the way to them. Each that
        is yielded counts as gone when the next is looked at. The first rule that applies:

        1. Outdated: it was loaded from an older revision of its catalogue entry.
        2. Defragmentation: its worker has been through `Policy.defrag_after_cycles` loads and
           unloads, nothing on that worker works, and it has been idle for the minimum residency.
        3. Idle: it was unused for its idle timeout, is not pinned, and the model's minimum of
           replicas is there without it.
        4. Surplus: there are more instances than the model's maximum of replicas, as after a
           neuron was lost and is back. The longest unused goes first; never one on a neuron that a
           person named for it.

        Args:
            now: seconds on the monotonic clock.
        """
        for member in list(self._fleet_state.fleet.members.values()):
            if not member.can_serve:
                continue
            worn = self._worn_devices(member)
            for instance in member.report.instances:
                try:
                    found = self._why_remove(instance, worn, now)
                except Exception as error:  # noqa: BLE001 - it is noted; the others are looked at
                    self._fleet_state.note_fault("reconcile", error)
                    continue
                if found is not None:
                    yield Removal(member.name, instance, *found)

    def _why_remove(
        self, instance: Instance, worn: frozenset[str], now: float
    ) -> tuple[UnloadReason, str] | None:
        fleet_state = self._fleet_state
        if instance.state is not InstanceState.READY or instance.in_flight:
            return None
        profile = fleet_state.profile(instance.model)
        record = fleet_state.activity.of(instance.instance_id)
        if profile is None or record is None or record.held_until > now:
            return None
        idle = now - record.last_used
        if not profile.matches(instance.config_revision):
            return UnloadReason.OUTDATED, "its catalogue entry has changed"
        if worn & instance.memory.keys() and idle >= fleet_state.policy.minimum_residency:
            cycles = fleet_state.policy.defrag_after_cycles
            reason = f"its worker has been through {cycles} loads and unloads or more"
            return UnloadReason.DEFRAG, reason
        if idle >= fleet_state.idle_timeout(profile, record) and not fleet_state.is_pinned(profile):
            replicas = len(self._ready_instances.routable(profile))
            if replicas > fleet_state.wanted_instances(profile):
                return UnloadReason.IDLE, f"unused for {idle:.0f} s"
        if self._is_surplus(instance, profile):
            return UnloadReason.SURPLUS, f"more than {profile.max_replicas} of its model"
        return None

    def _is_surplus(self, instance: Instance, profile: Profile) -> bool:
        routable = self._ready_instances.routable(profile)
        if len(routable) <= profile.max_replicas:
            return False
        pinned_on = self._fleet_state.pinned_on(profile)
        unused: list[tuple[float, str]] = []
        for member, other in routable:
            record = self._fleet_state.activity.of(other.instance_id)
            is_free = record is not None and not record.is_chosen and member.name != pinned_on
            if record is not None and is_free and not other.in_flight:
                unused.append((record.last_used, other.instance_id))
        return bool(unused) and min(unused)[1] == instance.instance_id

    def _worn_devices(self, member: Member) -> frozenset[str]:
        """Ids of the devices whose worker is due for recycling and has no work at all."""
        limit = self._fleet_state.policy.defrag_after_cycles
        if not limit:
            return frozenset()
        working = {d for i in member.report.instances if i.in_flight for d in i.memory}
        return frozenset(
            device_id
            for worker in member.report.workers
            if worker.is_running
            and worker.load_cycles >= limit
            and not working.intersection(worker.device_ids)
            for device_id in worker.device_ids
        )

    # -- what should change -------------------------------------------------------------------

    def to_update(self) -> Iterator[Stale]:
        """Instances of their entry's revision whose requests get another sampling than it says."""
        for member in list(self._fleet_state.fleet.members.values()):
            if not member.can_serve:
                continue
            for instance in member.report.instances:
                profile = self._fleet_state.catalogue.profiles.get(instance.model)
                if profile is None or instance.state is not InstanceState.READY:
                    continue
                is_current = instance.config_revision == profile.revision
                if is_current and instance.sampling != profile.sampling:
                    yield Stale(member.name, instance, profile)

    # -- what should be there -----------------------------------------------------------------

    def to_add(self, now: float) -> Iterator[Want]:
        """Instances that should be there and are not.

        For each model the first rule that applies:

        1. Pinned on a neuron by an operator, and not ready there: one is loaded there.
        2. Fewer than its minimum of replicas (one for a pinned model): another one is loaded.
        3. To be preloaded, and never seen loaded since: one is loaded, into free devices only.
        4. All instances full for `Policy.scale_up_after` seconds, and fewer than its maximum of
           replicas: another one is loaded, into free devices only.

        Rules 1 and 2 may evict others.

        Args:
            now: seconds on the monotonic clock.
        """
        for profile in self._models_with_wishes():
            try:
                want = self._wish(profile, now)
            except Exception as error:  # noqa: BLE001 - it is noted; the others are looked at
                self._fleet_state.note_fault("reconcile", error)
                continue
            if want is not None:
                yield want

    def _wish(self, profile: Profile, now: float) -> Want | None:
        fleet_state, ready = self._fleet_state, self._ready_instances
        neuron = fleet_state.pinned_on(profile)
        if neuron and not ready.routable(profile, neuron):
            return Want(profile, 1, neuron, may_evict=True)
        replicas = len(ready.routable(profile))
        least = wanted = fleet_state.wanted_instances(profile)
        if profile.preload and profile.model not in self._preloaded:
            if replicas:
                self._preloaded.add(profile.model)
            wanted = max(wanted, 1)
        if replicas < wanted:
            return Want(profile, replicas + 1, may_evict=least > replicas)
        if replicas < profile.max_replicas and self._all_full(profile, now):
            return Want(profile, replicas + 1)
        return None

    def _models_with_wishes(self) -> Iterator[Profile]:
        names = set(self._fleet_state.pins)
        for model, profile in self._fleet_state.catalogue.profiles.items():
            if profile.min_replicas or profile.preload or profile.pinned:
                names.add(model)
            if profile.max_replicas > 1:
                names.add(model)
        for name in sorted({self._fleet_state.resolve(name) for name in names}):
            known = self._fleet_state.profile(name)
            if known is not None:
                yield known

    def _all_full(self, profile: Profile, now: float) -> bool:
        routable = self._ready_instances.routable(profile)
        records = [self._fleet_state.activity.of(i.instance_id) for _, i in routable]
        after = self._fleet_state.policy.scale_up_after
        return bool(records) and all(
            r is not None and r.full_since is not None and now - r.full_since >= after
            for r in records
        )

"""Which loaded instance a caller is sent to."""

from __future__ import annotations

from services.registry.catalogue.profile import Profile
from services.registry.fleet.records import Instance, Member
from services.registry.fleet.state import FleetState
from services.registry.placement.progress import Placed
from services.registry.scheduler.cache import SchedulerCache

RoutableInstances = list[tuple[Member, Instance]]


class ReadyInstances:
    """Finds the instances that requests may be sent to, and picks one for a caller."""

    def __init__(self, fleet_state: FleetState, cache: SchedulerCache) -> None:
        self._fleet_state = fleet_state
        self._cache = cache

    def routable(self, profile: Profile, neuron: str = "") -> RoutableInstances:
        """Instances that requests may be sent to, on one neuron or (empty) on any."""
        if not self._fleet_state.fleet.has_instances(profile.model):
            return []
        return [
            (member, instance)
            for member, instance in self._fleet_state.fleet.instances_of(profile.model)
            if (not neuron or member.name == neuron)
            and self._fleet_state.is_routable(profile, member, instance)
            and not self._cache.is_leaving(instance.instance_id)
        ]

    def choose(self, routable: RoutableInstances, excluded: frozenset[str]) -> Placed | None:
        """The least busy instance that is not excluded, or None. Ties go by the neuron's name."""
        allowed = [r for r in routable if r[1].instance_id not in excluded]
        if not allowed:
            return None
        member, instance = min(allowed, key=lambda r: (r[1].in_flight, r[0].name))
        return Placed(member.name, member.identity.address, instance.instance_id, instance.model)

    def hold(self, placed: Placed, now: float) -> None:
        """Protects an instance from eviction while a caller is on its way to it."""
        until = now + self._fleet_state.policy.handover
        self._fleet_state.activity.hold(placed.instance_id, now, until)
        self._cache.forget(placed.neuron)

    def is_in_use(self, model: str, now: float) -> bool:
        """True if an instance of a model has work, or a caller on the way to it."""
        for _, instance in self._fleet_state.fleet.instances_of(model):
            record = self._fleet_state.activity.of(instance.instance_id)
            if instance.in_flight or (record is not None and record.held_until > now):
                return True
        return False

    def forget(self, model: str) -> None:
        """What protects the instances of a model has changed."""
        for member, _ in self._fleet_state.fleet.instances_of(model):
            self._cache.forget(member.name)

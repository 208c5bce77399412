"""Which instances must go to make room. Asked far more often than anything happens: no logs here.

Three questions are kept apart. *May* an instance ever be displaced by this model: pins, residency
class, the model's minimum of replicas. May it be displaced *now*: minimum residency, hand-overs,
work in flight. And in which *order* do those go that may: the strategy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

from services.registry.fleet.policy import Strategy
from services.registry.fleet.records import InstanceState
from services.registry.scheduler.neuron_info import DeviceInfo, InstanceInfo


@dataclasses.dataclass(frozen=True, slots=True)
class Incoming:
    """The model that needs room.

    Attributes:
        residency_class: it may displace its own class and those below.
        may_drain: it has waited so long that busy instances may be drained for it.
        now: seconds on the monotonic clock.
    """

    residency_class: int
    may_drain: bool
    now: float
    strategy: Strategy = Strategy.LRU


@dataclasses.dataclass(frozen=True, slots=True)
class EvictionPlan:
    """How to make room for a model on some devices of one neuron.

    Attributes:
        victims: in the order in which they go; empty where nothing must.
        obstacle: why it cannot be done now; empty where it can.
        is_hopeless: it cannot be done by waiting either.
        retry_at: when a protection ends that is in the way; None if only work is in the way.
        waits_for: instances that are in the way for now.
    """

    victims: tuple[InstanceInfo, ...] = ()
    obstacle: str = ""
    is_hopeless: bool = False
    retry_at: float | None = None
    waits_for: tuple[InstanceInfo, ...] = ()

    @property
    def drains(self) -> bool:
        """True if a victim has work in flight."""
        return any(v.in_flight for v in self.victims)


_NOBODY: Final[Mapping[str, str]] = MappingProxyType({})
_IN_MOTION = frozenset({
    InstanceState.LOADING,
    InstanceState.DRAINING,
    InstanceState.UNLOADING,
    InstanceState.RECOVERING,
    InstanceState.UNKNOWN,
})  # fmt: skip


def immunity(instance: InstanceInfo, incoming: Incoming) -> str:
    """Why an instance is never evicted for this model, whoever waits; empty if it may be.

    1. A useless instance (failed, outdated) is protected by nothing.
    2. A pinned one is never evicted.
    3. One of a higher residency class is not evicted for a lower one.
    4. One of its model's minimum of replicas is not evicted for its own class.
    """
    if instance.is_surplus:
        return ""
    if instance.is_pinned:
        return "pinned"
    if instance.residency_class > incoming.residency_class:
        return f"class {instance.residency_class} is above {incoming.residency_class}"
    if instance.is_kept and instance.residency_class == incoming.residency_class:
        return "one of its minimum of replicas"
    return ""


def may_go_now(instance: InstanceInfo, incoming: Incoming) -> bool:
    """True if an instance may be evicted at this moment, as far as time goes.

    All of these must hold:

    1. It is not being loaded, unloaded, drained or recovered.
    2. It has no work, or the model that comes has waited so long that work is drained for it.
    3. Its protection (minimum residency, a caller on its way) is over, or it is useless.
    """
    return (
        instance.state not in _IN_MOTION
        and (incoming.may_drain or not instance.in_flight)
        and (instance.is_surplus or instance.protected_until <= incoming.now)
    )


def delay(instance: InstanceInfo, incoming: Incoming) -> str:
    """Why an instance cannot be evicted now, for people; empty if it can."""
    if may_go_now(instance, incoming):
        return ""
    if instance.state in _IN_MOTION:
        return instance.state.value
    if instance.in_flight and not incoming.may_drain:
        return f"{instance.in_flight} requests in flight"
    return f"kept for {instance.protected_until - incoming.now:.1f} s more"


class EvictionOrder(NamedTuple):
    """Sort key of eviction: the smallest goes first.

    Useless instances go before idle ones, idle ones before busy ones; then by residency class,
    where the strategy is `priority`; then the longest unused.
    """

    is_useful: bool
    is_busy: bool
    residency_class: int
    """0 where the strategy does not go by it."""
    last_used: float


def turn(instance: InstanceInfo, strategy: Strategy) -> EvictionOrder:
    """The key by which victims are sorted: the least is evicted first."""
    rank = instance.residency_class if strategy is Strategy.PRIORITY else 0
    return EvictionOrder(not instance.is_surplus, instance.in_flight > 0, rank, instance.last_used)


def make_room(
    devices: Sequence[DeviceInfo],
    needs: Mapping[str, int],
    instances: Iterable[InstanceInfo],
    incoming: Incoming,
    *,
    rivals: Mapping[str, str] = _NOBODY,
) -> EvictionPlan:
    """Chooses the instances that must go so that each device has what is needed free.

    0. Rivals go, whatever is free, by the same rules as others: what protects one of them for good
       makes the plan hopeless, what keeps one for now is waited for. The rest is about what is
       missing once they are gone.
    1. Devices that have enough free need nothing.
    2. Instances that may be evicted now are taken in order (see `EvictionOrder`) until enough is
       free.
    3. Of those, any that is not needed once the others are gone stays, the last taken first.
    4. If all of them do not free enough, nothing goes: the plan says what is in the way, and until
       when a protection keeps it there.
    5. If even the instances that may ever be evicted do not free enough, the plan is hopeless.

    Args:
        devices: the devices that the model would use.
        needs: bytes on each of them.
        instances: everything on the neuron.
        incoming: what needs the room.
        rivals: instances that it is never loaded beside, and the rule for people.
    """
    if rivals:
        return _without_rivals(devices, needs, instances, incoming=incoming, rivals=rivals)
    missing = {d.device_id: needs[d.device_id] - d.free_bytes for d in devices}
    missing = {device_id: short for device_id, short in missing.items() if short > 0}
    if not missing:
        return EvictionPlan()
    touching = [i for i in instances if any(d in missing for d in i.memory)]
    open_to = [i for i in touching if not immunity(i, incoming)]
    free_now = [i for i in open_to if may_go_now(i, incoming)]
    free_now.sort(key=lambda i: (*turn(i, incoming.strategy), i.instance_id))
    victims = _enough(free_now, missing)
    if victims is not None:
        return EvictionPlan(victims=victims)
    if _enough(open_to, missing) is None:
        return EvictionPlan(obstacle=_hopeless(touching, incoming), is_hopeless=True)
    late = [i for i in open_to if delay(i, incoming)]
    named = ", ".join(f"{i.model} ({delay(i, incoming)})" for i in late)
    protections = [i.protected_until for i in late if i.protected_until > incoming.now]
    return EvictionPlan(
        obstacle=f"in the way for now: {named}",
        retry_at=min(protections, default=None),
        waits_for=tuple(late),
    )


def _without_rivals(
    devices: Sequence[DeviceInfo],
    needs: Mapping[str, int],
    instances: Iterable[InstanceInfo],
    *,
    incoming: Incoming,
    rivals: Mapping[str, str],
) -> EvictionPlan:
    """The plan of `make_room` where rivals have to go too."""
    first = [i for i in instances if i.instance_id in rivals]
    immune = [(i, why) for i in first if (why := immunity(i, incoming))]
    if immune:
        named = ", ".join(f"{i.model} ({why}; {rivals[i.instance_id]})" for i, why in immune)
        return EvictionPlan(obstacle=f"may not be displaced: {named}", is_hopeless=True)
    freed = [
        dataclasses.replace(
            d, free_bytes=d.free_bytes + sum(i.memory.get(d.device_id, 0) for i in first)
        )
        for d in devices
    ]
    others = [i for i in instances if i.instance_id not in rivals]
    plan = make_room(freed, needs, others, incoming)
    late = tuple(i for i in first if delay(i, incoming))
    if plan.is_hopeless or (plan.obstacle and not late):
        return plan
    if late:
        named = ", ".join(
            f"{i.model} ({delay(i, incoming)}; {rivals[i.instance_id]})" for i in late
        )
        ends = [i.protected_until for i in late if i.protected_until > incoming.now]
        ends += [] if plan.retry_at is None else [plan.retry_at]
        return EvictionPlan(
            obstacle=f"in the way for now: {named}",
            retry_at=min(ends, default=None),
            waits_for=(*late, *plan.waits_for),
        )
    victims = [*first, *plan.victims]
    victims.sort(key=lambda i: (*turn(i, incoming.strategy), i.instance_id))
    return EvictionPlan(victims=tuple(victims))


def _enough(
    instances: Sequence[InstanceInfo], missing: dict[str, int]
) -> tuple[InstanceInfo, ...] | None:
    """The first few that free what is missing, without superfluous ones; None if all do not."""
    chosen: list[InstanceInfo] = []
    left = dict(missing)
    for instance in instances:
        if not any(left.get(d, 0) > 0 for d in instance.memory):
            continue
        chosen.append(instance)
        for device_id, freed in instance.memory.items():
            if device_id in left:
                left[device_id] -= freed
        if all(short <= 0 for short in left.values()):
            return tuple(_without_surplus(chosen, left))
    return None


def _without_surplus(chosen: list[InstanceInfo], left: dict[str, int]) -> list[InstanceInfo]:
    """Leaves out, the last taken first, whatever is not needed once the others are gone."""
    for instance in list(reversed(chosen)):
        if all(left.get(d, 0) + freed <= 0 for d, freed in instance.memory.items() if d in left):
            chosen.remove(instance)
            for device_id, freed in instance.memory.items():
                if device_id in left:
                    left[device_id] += freed
    return chosen


def _hopeless(touching: list[InstanceInfo], incoming: Incoming) -> str:
    immune = [f"{i.model} ({why})" for i in touching if (why := immunity(i, incoming))]
    if immune:
        return f"may not be displaced: {', '.join(immune)}"
    return "its memory is in use by something that is not of this fleet"

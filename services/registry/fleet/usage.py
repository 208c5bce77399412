"""When each instance became ready and was last used, by the registry's own clock.

Neurons stamp with their own clocks, which nobody compares with ours: a stamp that moves means
"used since the last report", and no more than that.
"""

from __future__ import annotations

import dataclasses

from services.registry.fleet.records import Instance, InstanceState, Member


@dataclasses.dataclass(slots=True)
class UsageRecord:
    """When one instance was used; times are seconds on the monotonic clock.

    Attributes:
        ready_since: when it was first seen READY.
        last_used: when it was last seen at work, or became ready.
        stamp: the neuron's own time of its last use, in seconds of the neuron's clock.
        held_until: protected until then for a caller that was just sent to it; 0 once it has come.
        load_seconds: how long its load took.
        keep_alive: seconds of idleness that a client asked for; None leaves it to policy.
        is_busy: it had work when it was last heard of.
        is_chosen: a person asked for it on this very neuron.
        full_since: since when it has requests queued and no free place; None if it has not.
    """

    ready_since: float
    last_used: float
    stamp: float
    held_until: float = 0.0
    load_seconds: float = 0.0
    keep_alive: float | None = None
    is_busy: bool = False
    is_chosen: bool = False
    full_since: float | None = None


class Activity:
    """Records of every instance that is or was READY, by instance id."""

    def __init__(self) -> None:
        self._records: dict[str, UsageRecord] = {}
        self._of: dict[str, set[str]] = {}

    def observe(self, name: str, member: Member | None, now: float) -> None:
        """Takes a member's newest state; None if it has left."""
        instances = member.report.instances if member else ()
        newest = max((i.last_used for i in instances), default=0.0)
        seen: set[str] = set()
        for instance in instances:
            if instance.state is InstanceState.LOADING:
                continue
            seen.add(instance.instance_id)
            self._observe(instance, newest, now)
        for gone in self._of.get(name, set()) - seen:
            self._records.pop(gone, None)
        self._of[name] = seen
        if not seen:
            del self._of[name]

    def _observe(self, instance: Instance, newest: float, now: float) -> None:
        record = self._records.get(instance.instance_id)
        if record is None:
            # after a restart of the registry the order of use within a neuron is kept
            age = min(newest - instance.last_used, now) if instance.last_used else 0.0
            record = UsageRecord(now, now - max(0.0, age), instance.last_used)
            record.load_seconds = instance.load_seconds
            self._records[instance.instance_id] = record
        is_busy, was_busy = bool(instance.in_flight), record.is_busy
        if is_busy or instance.last_used > record.stamp:
            record.last_used = now
        if not is_busy and (was_busy or instance.last_used > record.stamp):
            record.held_until = 0.0  # whoever was on the way has come, and has been answered
        record.is_busy = is_busy
        record.stamp = instance.last_used
        full = instance.queued_requests > 0
        record.full_since = (record.full_since or now) if full else None

    def hold(self, instance_id: str, now: float, until: float) -> None:
        """Protects an instance from eviction for a caller that was just sent to it."""
        record = self._records.get(instance_id)
        if record is not None:
            record.held_until = max(record.held_until, until)
            record.last_used = max(record.last_used, now)

    def of(self, instance_id: str) -> UsageRecord | None:
        """The record of an instance, or None for one never seen ready."""
        return self._records.get(instance_id)

"""Makes room for one job: instances are unloaded one by one, and each time the plan is checked."""

from __future__ import annotations

import enum
from typing import Final

from services.registry.fleet.records import Instance
from services.registry.fleet.state import FleetState
from services.registry.placement.demand import Phase, PlacementJob
from services.registry.placement.orders import FollowingLoad, UnloadReason
from services.registry.placement.unload import OnEnd, UnloadRunner
from services.registry.scheduler import eviction
from services.registry.scheduler.cache import SchedulerCache
from services.registry.scheduler.eviction import Incoming
from services.registry.scheduler.rivals import rivals

# A neuron reports at every change; if no report comes after an unload, the load says the truth.
_SETTLE_SECONDS: Final = 3.0
# Plans that fresh figures overturn before the neuron is asked anyway.
_MOST_REPLANS: Final = 3


class PlanCheck(enum.Enum):
    """Whether a job's plan still holds by the neuron's newest report."""

    CLEAR = "clear"
    """There is room: the load may begin."""
    OVERTURNED = "overturned"
    """The plan cannot be carried out as it was made."""


class RoomMaker:
    """Unloads what is in a job's way, as far as it is still in the way."""

    def __init__(
        self, fleet_state: FleetState, cache: SchedulerCache, unloads: UnloadRunner
    ) -> None:
        self._fleet_state = fleet_state
        self._cache = cache
        self._unloads = unloads

    def next_of(self, job: PlacementJob, now: float) -> Instance | PlanCheck:
        """The next instance to evict, or whether the load may begin.

        The plan is checked against the neuron's newest report. The first rule that applies:

        1. The neuron takes nothing any more (cordoned, about to stop): the plan is overturned.
        2. The next victim is gone by itself, or the model fits without evicting it: the victim is
           left out. An instance of the same model, and a rival (see `rivals`), goes in any case.
        3. The next victim is protected now (work or a caller has come to it): overturned.
        4. A victim is left: it is evicted next.
        5. None is left and the model does not fit: overturned, but for a demand whose plans were
           overturned three times; then the load is tried, and the neuron says the truth.
        6. None is left, but a rival has come meanwhile: overturned.
        7. None is left and the model fits: the load may begin.
        """
        neuron_info = self._cache.of(job.neuron)
        member = self._fleet_state.fleet.members[job.neuron]
        if neuron_info.refusal:  # cordoned, or about to stop, since the decision was made
            return PlanCheck.OVERTURNED
        fits = self._fits(job)
        apart = rivals(job.profile, neuron_info, job.device_ids)
        while job.victims:
            instance = member.instance(job.victims[0])
            own = instance is not None and instance.model == job.profile.model
            if instance is None or (fits and not own and instance.instance_id not in apart):
                job.victims.pop(0)
                continue
            is_protected = self._is_protected(job, instance.instance_id, now)
            return PlanCheck.OVERTURNED if is_protected else instance
        if apart:
            return PlanCheck.OVERTURNED
        if not fits and job.demand.replans < _MOST_REPLANS:
            return PlanCheck.OVERTURNED
        return PlanCheck.CLEAR

    def evict(self, job: PlacementJob, instance: Instance, now: float, on_end: OnEnd) -> None:
        """Orders the unload of a victim; `on_end` is called once, with the error or None."""
        policy = self._fleet_state.policy
        record = self._fleet_state.activity.of(instance.instance_id)
        idle = now - record.last_used if record else 0.0
        busy = f"{instance.in_flight} requests in flight" if instance.in_flight else "idle"
        job.victims.pop(0)
        job.leaving = instance.instance_id
        job.phase, job.phase_since = Phase.EVICTING, now
        job.deadline = float("inf")  # the unload has a bound of its own
        self._fleet_state.displacements.note(instance.model, job.profile.model)
        self._unloads.order(
            job.neuron,
            instance,
            UnloadReason.EVICTED,
            drain_seconds=policy.drain_timeout,
            principal=job.principal,
            following=FollowingLoad(job.profile, tuple(job.device_ids)),
            reason=(
                f"{policy.strategy.value}: {busy}, last used {idle:.1f} s ago; "
                f"{job.profile.model} has waited {now - job.demand.since:.1f} s"
            ),
            on_end=on_end,
        )

    def settle(self, job: PlacementJob, now: float) -> None:
        """Waits, after a victim is gone, for the neuron's next report of its free memory."""
        job.leaving = ""
        job.phase, job.phase_since = Phase.SETTLING, now
        job.deadline = now + _SETTLE_SECONDS

    def is_settled(self, job: PlacementJob) -> bool:
        """True once the neuron has reported since its victim went."""
        return not self._fleet_state.fleet.awaits_report(job.neuron)

    def is_draining(self, job: PlacementJob) -> bool:
        """True while the instance that is being unloaded has running requests."""
        return job.phase is Phase.EVICTING and any(
            i.in_flight
            for i in self._cache.of(job.neuron).instances
            if i.instance_id == job.leaving
        )

    def _is_protected(self, job: PlacementJob, instance_id: str, now: float) -> bool:
        """True if the victim may not go any more: work or a caller has come to it meanwhile."""
        policy = self._fleet_state.policy
        incoming = Incoming(
            job.profile.residency_class,
            job.demand.is_urgent(now, policy.patience),
            now,
            policy.strategy,
        )
        return any(
            eviction.immunity(i, incoming) or eviction.delay(i, incoming)
            for i in self._cache.of(job.neuron).instances
            if i.instance_id == instance_id
        )

    def _fits(self, job: PlacementJob) -> bool:
        devices = {d.device_id: d for d in self._cache.of(job.neuron).devices}
        return all(
            device_id in devices and devices[device_id].free_bytes >= need
            for device_id, need in job.needs.items()
        )

"""What is done about one demand: placed, made to wait, turned elsewhere, or refused.

The scheduler says what would be best; here it is acted on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final, TypeAlias

from services.backplane.errors import FleetError
from services.registry.control.cooldowns import Cooldowns
from services.registry.control.request_builder import RequestBuilder
from services.registry.control.returning import Settling
from services.registry.fleet.state import FleetState
from services.registry.placement import errors
from services.registry.placement.demand import Demand, PlacementJob
from services.registry.placement.executor import PlacementExecutor
from services.registry.placement.orders import Effects, Redirected
from services.registry.placement.progress import Queued
from services.registry.placement.queue import PlacementQueue
from services.registry.scheduler import select
from services.registry.scheduler.cache import SchedulerCache
from services.registry.scheduler.request import (
    PLACEABLE,
    PlacementCandidate,
    PlacementDecision,
    PlacementOutcome,
)

# Drains that one demand may give up for something idle. Each drain that is given up has unloaded
# an instance for nothing.
_MOST_REDIRECTS: Final = 2

# Device ids, by neuron, that are kept for demands which have waited longer.
ReservedDevices: TypeAlias = dict[str, frozenset[str]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """One look at one demand."""

    demand: Demand
    position: int
    reserved: ReservedDevices
    now: float


class Decider:
    """Decides about demands, and begins the jobs that meet them."""

    def __init__(
        self,
        fleet_state: FleetState,
        cache: SchedulerCache,
        *,
        queue: PlacementQueue,
        executor: PlacementExecutor,
        requests: RequestBuilder,
        cooldowns: Cooldowns,
        effects: Effects,
        settling: Settling,
    ) -> None:
        self._fleet_state = fleet_state
        self._cache = cache
        self._queue = queue
        self._executor = executor
        self._requests = requests
        self._cooldowns = cooldowns
        self._effects = effects
        self._settling = settling
        self._refused: dict[str, FleetError] = {}

    @property
    def refused(self) -> Mapping[str, FleetError]:
        """Why models were last refused while nobody waited who could be told, by model.

        Not where it is being placed again.
        """
        return self._refused

    # -- verbs --------------------------------------------------------------------------------

    def place(self, demand: Demand, position: int, reserved: ReservedDevices, now: float) -> None:
        """Begins to place a demand, or says what it waits for, or refuses it.

        The first rule that applies decides:

        1. The model failed to load a moment ago: refused, until its pause is over.
        2. An instance of it is being placed, loaded or recovered already: it waits for that one.
        3. The registry has just started, and neurons that were there before are not back: it waits
           for them. One of them may hold the model.
        4. The scheduler finds free devices, or devices that become free by evicting or draining:
           the job begins. Neurons that failed this demand are left out while there are others.
        5. No neuron could run the model, even empty: refused.
        6. Something that ends by itself is in the way (a protection, work, another load): it
           waits. If it is urgent, the devices are reserved for it. A load that nobody waits for
           any more is ended where it is in the way.
        7. All neurons that could run it take nothing now (cordoned, about to stop): it waits for
           `Policy.settle` seconds, then it is refused.
        8. What is loaded may not be displaced by it (pins, residency class): refused.

        Args:
            demand: one without a job.
            position: its place among those that wait; 1 is next.
            reserved: what older demands have reserved; an urgent one that waits adds to it.
            now: seconds on the monotonic clock.
        """
        demand.retry_at = None
        look = _Look(demand=demand, position=position, reserved=reserved, now=now)
        pause = self._cooldowns.refusal(demand.profile.model, now)
        if pause is not None and not demand.failures:
            self.fail(demand, pause)
            return
        if obstacle := self._requests.obstacle(demand):
            self._wait(look, obstacle)
            return
        if not self._settling.is_over(now):
            reason = "the registry has just started and waits for its neurons"
            self._wait(look, reason, retry_at=self._settling.ends_at)
            return
        request = self._requests.request_for(demand, reserved, now)
        decision = select.decide(request, self._cache.index)
        if decision.outcome not in PLACEABLE and demand.avoided:
            # nowhere else: the neuron that failed may try once more
            request = dataclasses.replace(request, avoided={})
            decision = select.decide(request, self._cache.index)
        self._act(look, decision)

    def reconsider(
        self, demand: Demand, job: PlacementJob, reserved: ReservedDevices, now: float
    ) -> None:
        """Turns a demand whose job waits for a drain to what has become free or idle meanwhile.

        1. Free devices anywhere are taken at once.
        2. An idle instance is evicted instead once the drain has lasted as long as loading that
           instance again would take, and twice at most for one demand. The one that drains takes
           no new work and is lost all the same, so nobody pays more than twice what knowing the
           future would have cost.
        3. Otherwise the drain is waited for.
        """
        demand.retry_at = None
        if demand.is_abandoned:
            return
        with self._executor.set_aside(job):
            request = self._requests.request_for(demand, reserved, now)
            request = dataclasses.replace(request, may_drain=False)
            decision = select.decide(request, self._cache.index)
            best = decision.best
            if best is None or decision.outcome not in PLACEABLE:
                return
            if decision.outcome is not PlacementOutcome.FREE_FIT:
                if demand.redirects >= _MOST_REDIRECTS:
                    return
                pays_at = job.phase_since + self._seconds_to_restore(best)
                if now < pays_at:
                    demand.retry_at = pays_at
                    return
                demand.redirects += 1
            self._executor.drop(job)
        seconds = now - job.phase_since
        self._effects.record(
            Redirected(demand.profile.model, job.neuron, best.neuron, seconds, best.reason)
        )
        self._begin(demand, best, now)

    def fail(self, demand: Demand, error: FleetError) -> None:
        """Ends a demand and its job with an error for all who wait."""
        if demand.job is not None:
            self._executor.drop(demand.job)
        if not demand.tickets:  # nobody is told now, so the status has to
            self._refused[demand.profile.model] = error
        self._queue.close(demand, error)

    def drop(self, demand: Demand) -> None:
        """Ends a demand that no caller waits for any more, and its job."""
        if demand.job is not None:
            self._executor.drop(demand.job)
            demand.job = None
        self._queue.close(demand)

    # -- acting on a decision -----------------------------------------------------------------

    def _begin(self, demand: Demand, best: PlacementCandidate, now: float) -> None:
        demand.unavailable_since = None
        self._refused.pop(demand.profile.model, None)
        job = self._executor.begin(demand, best, now)
        if demand.job is job:
            demand.tell(self._executor.step_of(job, now))

    def _act(self, look: _Look, decision: PlacementDecision) -> None:
        demand, best = look.demand, decision.best
        model, outcome = demand.profile.model, decision.outcome
        if best is not None and outcome in PLACEABLE:
            self._begin(demand, best, look.now)
        elif best is None or outcome is PlacementOutcome.IMPOSSIBLE:
            self.fail(demand, errors.impossible(model, decision.candidates))
        elif outcome is PlacementOutcome.WAIT:
            self._wait_for_devices(look, decision, best)
        elif outcome is PlacementOutcome.UNAVAILABLE:
            self._wait_for_neurons(look, decision, best)
        else:
            self.fail(demand, errors.blocked(model, decision.candidates))

    def _wait_for_devices(
        self, look: _Look, decision: PlacementDecision, best: PlacementCandidate
    ) -> None:
        demand, reserved = look.demand, look.reserved
        demand.unavailable_since = None
        if demand.is_urgent(look.now, self._fleet_state.policy.patience):
            others = reserved.get(best.neuron, frozenset())
            reserved[best.neuron] = others | set(best.device_ids)
        self._end_abandoned_load(demand)
        retry_at = decision.retry_at
        eta = None if retry_at is None else retry_at - look.now + best.predicted_seconds
        self._wait(look, f"{best.neuron}: {best.reason}", eta=eta, retry_at=retry_at)

    def _wait_for_neurons(
        self, look: _Look, decision: PlacementDecision, best: PlacementCandidate
    ) -> None:
        """A neuron may be back in a moment; for longer than that nobody is kept waiting."""
        demand, now = look.demand, look.now
        if demand.unavailable_since is None:
            demand.unavailable_since = now
        until = demand.unavailable_since + self._fleet_state.policy.settle
        if now >= until:
            error = errors.unavailable(demand.profile.model, decision.candidates)
            self.fail(demand, demand.last_error or error)
            return
        self._end_abandoned_load(demand)
        self._wait(look, f"{best.neuron}: {best.reason}", retry_at=until)

    def _wait(
        self, look: _Look, reason: str, *, eta: float | None = None, retry_at: float | None = None
    ) -> None:
        demand = look.demand
        urgent_at = demand.since + self._fleet_state.policy.patience
        moments = [m for m in (retry_at, urgent_at) if m is not None and m > look.now]
        demand.retry_at = min(moments, default=None)
        demand.tell(Queued(look.position, eta, reason))

    def _end_abandoned_load(self, demand: Demand) -> None:
        """Ends a load that nobody waits for, where it is in the way of this demand."""
        other = self._requests.abandoned_in_the_way(demand, self._queue.all())
        if other is not None:
            self.drop(other)

    def _seconds_to_restore(self, candidate: PlacementCandidate) -> float:
        """How long it would take to load a plan's victims again, where they are."""
        fleet_state = self._fleet_state
        seconds = 0.0
        for victim in candidate.victims:
            profile = fleet_state.profile(victim.model)
            if profile is not None and not victim.is_surplus:
                resident = self._cache.of(candidate.neuron).resident_share(profile)
                seconds += fleet_state.footprints.seconds(
                    profile, candidate.neuron, sum(victim.memory.values()), resident=resident
                )
        return seconds

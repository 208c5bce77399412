"""What is done about one demand: placed, made to wait, turned elsewhere, or refused.

`placement` says what the best would be; here it is acted on.
"""

from __future__ import annotations

import dataclasses
from typing import Final, TypeAlias

from services.backplane.errors import FleetError
from services.registry.control.cooldowns import Cooldowns
from services.registry.fleet.records import InstanceState
from services.registry.fleet.state import FleetState
from services.registry.placement import errors
from services.registry.placement.demand import Demand, PlacementJob
from services.registry.placement.executor import PlacementExecutor
from services.registry.placement.orders import Effects, Redirected
from services.registry.placement.progress import Queued
from services.registry.placement.queue import PlacementQueue
from services.registry.scheduler import filters, select
from services.registry.scheduler.cache import SchedulerCache
from services.registry.scheduler.request import (
    PLACEABLE,
    PlacementCandidate,
    PlacementDecision,
    PlacementOutcome,
    PlacementRequest,
)

# Drains that one demand may give up for something idle: so many copies leave for nothing at most.
_MOST_REDIRECTS: Final = 2

# Devices, by neuron, that are kept for demands which have waited longer.
Held: TypeAlias = dict[str, frozenset[str]]


class Decider:
    """Decides, and begins the jobs."""

    def __init__(
        self,
        fleet_state: FleetState,
        cache: SchedulerCache,
        demands: PlacementQueue,
        executor: PlacementExecutor,
        cooldowns: Cooldowns,
        effects: Effects,
        *,
        settles_at: float,
    ) -> None:
        self._fleet_state = fleet_state
        self._cache = cache
        self._queue = demands
        self._executor = executor
        self._cooldowns = cooldowns
        self._effects = effects
        self._settles_at = settles_at
        self.requests = RequestBuilder(fleet_state, cache, executor)

    def settled(self) -> None:
        """All neurons that were in the fleet before are back."""
        self._settles_at = 0.0

    # -- verbs --------------------------------------------------------------------------------

    def place(self, demand: Demand, position: int, held: Held, now: float) -> None:
        """Begins to place a demand, or says what it waits for."""
        demand.retry_at = None
        pause = self._cooldowns.refusal(demand.profile.model, now)
        if pause is not None and not demand.failures:
            self.fail(demand, pause)
            return
        if obstacle := self.requests.obstacle(demand):
            self._wait(demand, Queued(position, None, obstacle), None, now)
            return
        request = self.requests.request_for(demand, held, now)
        decision = select.decide(request, self._cache.index)
        if decision.outcome not in PLACEABLE and demand.avoided:
            # nowhere else: the neuron that failed may try once more
            request = dataclasses.replace(request, avoided={})
            decision = select.decide(request, self._cache.index)
        self._act(demand, decision, Queued(position, None, ""), held, now)

    def reconsider(self, demand: Demand, job: PlacementJob, held: Held, now: float) -> None:
        """Turns a demand that waits for running work to what has become free or idle meanwhile.

        Free room is taken at once. Something idle goes instead once the drain has lasted as long
        as loading it again would take: the copy that drains takes no new work any more and is lost
        all the same, so nobody pays more than twice what knowing the future would have cost.
        """
        demand.retry_at = None
        if demand.is_abandoned:
            return
        with self._executor.set_aside(job):
            request = dataclasses.replace(
                self.requests.request_for(demand, held, now), may_drain=False
            )
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
        """Ends a demand; whoever waits is told why."""
        if demand.job is not None:
            self._executor.drop(demand.job)
        self._queue.close(demand, error)

    def drop(self, demand: Demand) -> None:
        """Ends a demand that nobody waits for."""
        if demand.job is not None:
            self._executor.drop(demand.job)
            demand.job = None
        self._queue.close(demand)

    # -- acting on a decision -----------------------------------------------------------------

    def _begin(self, demand: Demand, best: PlacementCandidate, now: float) -> None:
        demand.unavailable_since = None
        job = self._executor.begin(demand, best, now)
        if demand.job is job:
            demand.tell(self._executor.step_of(job, now))

    def _act(
        self, demand: Demand, decision: PlacementDecision, queued: Queued, held: Held, now: float
    ) -> None:
        best, model = decision.best, demand.profile.model
        if best is not None and decision.outcome in PLACEABLE:
            self._begin(demand, best, now)
        elif now < self._settles_at:
            reason = "the registry has just started and waits for its neurons"
            self._wait(demand, dataclasses.replace(queued, reason=reason), self._settles_at, now)
        elif best is None or decision.outcome is PlacementOutcome.IMPOSSIBLE:
            self.fail(demand, errors.impossible(model, decision.candidates))
        elif decision.outcome is PlacementOutcome.WAIT:
            demand.unavailable_since = None
            self._wait_for(demand, decision, best, queued, held, now)
        elif decision.outcome is PlacementOutcome.UNAVAILABLE:
            self._wait_for_neurons(demand, decision, best, queued, now)
        else:
            self.fail(demand, errors.blocked(model, decision.candidates))

    def _wait_for(
        self,
        demand: Demand,
        decision: PlacementDecision,
        best: PlacementCandidate,
        queued: Queued,
        held: Held,
        now: float,
    ) -> None:
        if demand.is_urgent(now, self._fleet_state.policy.patience):
            held[best.neuron] = held.get(best.neuron, frozenset()) | set(best.device_ids)
        self._make_way(demand)
        retry_at = decision.retry_at
        eta = None if retry_at is None else retry_at - now + best.predicted_seconds
        reason = f"{best.neuron}: {best.reason}"
        self._wait(demand, Queued(queued.position, eta, reason), retry_at, now)

    def _wait_for_neurons(
        self,
        demand: Demand,
        decision: PlacementDecision,
        best: PlacementCandidate,
        queued: Queued,
        now: float,
    ) -> None:
        """A neuron may be back in a moment; for longer than that nobody is kept waiting."""
        if demand.unavailable_since is None:
            demand.unavailable_since = now
        until = demand.unavailable_since + self._fleet_state.policy.settle
        if now >= until:
            error = errors.unavailable(demand.profile.model, decision.candidates)
            self.fail(demand, demand.last_error or error)
            return
        self._make_way(demand)
        reason = f"{best.neuron}: {best.reason}"
        self._wait(demand, Queued(queued.position, None, reason), until, now)

    def _wait(self, demand: Demand, step: Queued, retry_at: float | None, now: float) -> None:
        urgent_at = demand.since + self._fleet_state.policy.patience
        moments = [m for m in (retry_at, urgent_at) if m is not None and m > now]
        demand.retry_at = min(moments, default=None)
        demand.tell(step)

    def _make_way(self, demand: Demand) -> None:
        """Ends a load that nobody waits for, where it is in the way of this one."""
        other = self.requests.abandoned_in_the_way(demand, self._queue.all())
        if other is not None:
            self.drop(other)

    def _seconds_to_restore(self, candidate: PlacementCandidate) -> float:
        """How long it would take to load a plan's victims again, where they are."""
        fleet_state = self._fleet_state
        seconds = 0.0
        for victim in candidate.victims:
            profile = fleet_state.profile(victim.model)
            if profile is not None and not victim.is_surplus:
                held = sum(victim.memory.values())
                seconds += fleet_state.footprints.seconds(profile, candidate.neuron, held)
        return seconds


class RequestBuilder:
    """Reads the state of the fleet and the jobs under way; changes nothing."""

    def __init__(
        self, fleet_state: FleetState, cache: SchedulerCache, executor: PlacementExecutor
    ) -> None:
        self._fleet_state = fleet_state
        self._cache = cache
        self._executor = executor

    def request_for(
        self, demand: Demand, held: dict[str, frozenset[str]], now: float
    ) -> PlacementRequest:
        """The question that `placement` answers for a demand.

        Args:
            demand: what is wanted.
            held: devices, by neuron, that are kept for older demands.
            now: seconds on the monotonic clock.
        """
        fleet_state = self._fleet_state
        footprint = fleet_state.footprint(demand.profile)
        return PlacementRequest(
            demand.profile,
            footprint,
            now,
            load_seconds=lambda neuron: fleet_state.footprints.seconds(
                demand.profile, neuron, footprint.total_bytes
            ),
            strategy=fleet_state.policy.strategy,
            may_drain=demand.is_urgent(now, fleet_state.policy.patience),
            avoided=demand.avoided,
            only_neuron=demand.key.neuron,
            may_evict=demand.may_evict,
            held=held,
        )

    def obstacle(self, demand: Demand) -> str:
        """A copy on its way, or on its way back: no second one is placed meanwhile. Else empty."""
        model, neuron = demand.profile.model, demand.key.neuron
        for job in self._executor.of_model(model):
            return f"it is being placed on {job.neuron}"
        for member, instance in self._fleet_state.fleet.instances_of(model):
            if not member.can_serve or (neuron and member.name != neuron):
                continue
            if instance.state is InstanceState.RECOVERING:
                return f"it is recovering on {member.name}"
            if instance.state is InstanceState.LOADING:
                return f"it is being loaded on {member.name}"
        return ""

    def abandoned_in_the_way(self, demand: Demand, others: list[Demand]) -> Demand | None:
        """A demand whose load nobody waits for, on a neuron where this one could run."""
        if self._fleet_state.policy.abandoned_loads != "displaced":
            return None
        footprint = self._fleet_state.footprint(demand.profile)
        for other in others:
            if other.job is None or not other.is_abandoned:
                continue
            neuron_info = self._cache.of(other.job.neuron)
            if not filters.objection(demand.profile, footprint, neuron_info):
                return other
        return None

"""What placement is asked for a demand, and what keeps it from being asked at all."""

from __future__ import annotations

from services.registry.fleet.records import InstanceState
from services.registry.fleet.state import Situation
from services.registry.placement.demand import Demand
from services.registry.placement.executor import Jobs
from services.registry.scheduler import filters
from services.registry.scheduler.cache import Standings
from services.registry.scheduler.request import Ask


class Asking:
    """Reads the situation and the jobs under way; changes nothing."""

    def __init__(self, situation: Situation, standings: Standings, jobs: Jobs) -> None:
        self._situation = situation
        self._standings = standings
        self._jobs = jobs

    def ask_for(self, demand: Demand, held: dict[str, frozenset[str]], now: float) -> Ask:
        """The question that `placement` answers for a demand.

        Args:
            demand: what is wanted.
            held: devices, by neuron, that are kept for older demands.
            now: seconds on the monotonic clock.
        """
        situation = self._situation
        footprint = situation.footprint(demand.profile)
        return Ask(
            demand.profile,
            footprint,
            now,
            load_seconds=lambda neuron: situation.footprints.seconds(
                demand.profile, neuron, footprint.total_bytes
            ),
            strategy=situation.policy.strategy,
            may_drain=demand.is_urgent(now, situation.policy.patience),
            avoided=demand.avoided,
            only_neuron=demand.key.neuron,
            may_evict=demand.may_evict,
            held=held,
        )

    def obstacle(self, demand: Demand) -> str:
        """A copy on its way, or on its way back: no second one is placed meanwhile. Else empty."""
        model, neuron = demand.profile.model, demand.key.neuron
        for job in self._jobs.of_model(model):
            return f"it is being placed on {job.neuron}"
        for member, instance in self._situation.fleet.copies(model):
            if not member.can_serve or (neuron and member.name != neuron):
                continue
            if instance.state is InstanceState.RECOVERING:
                return f"it is recovering on {member.name}"
            if instance.state is InstanceState.LOADING:
                return f"it is being loaded on {member.name}"
        return ""

    def abandoned_in_the_way(self, demand: Demand, others: list[Demand]) -> Demand | None:
        """A demand whose load nobody waits for, on a neuron where this one could run."""
        if self._situation.policy.abandoned_loads != "displaced":
            return None
        footprint = self._situation.footprint(demand.profile)
        for other in others:
            if other.job is None or not other.is_abandoned:
                continue
            standing = self._standings.of(other.job.neuron)
            if not filters.objection(demand.profile, footprint, standing):
                return other
        return None

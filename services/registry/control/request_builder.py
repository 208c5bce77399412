"""From a demand to the question that the scheduler answers, and what stands in a demand's way."""

from __future__ import annotations

from collections.abc import Mapping

from services.registry.fleet.records import InstanceState
from services.registry.fleet.state import FleetState
from services.registry.placement.demand import Demand
from services.registry.placement.executor import PlacementExecutor
from services.registry.scheduler import filters
from services.registry.scheduler.cache import SchedulerCache
from services.registry.scheduler.request import PlacementRequest


class RequestBuilder:
    """Reads the state of the fleet and the jobs under way; changes nothing."""

    def __init__(
        self, fleet_state: FleetState, cache: SchedulerCache, executor: PlacementExecutor
    ) -> None:
        self._fleet_state = fleet_state
        self._cache = cache
        self._executor = executor

    def request_for(
        self, demand: Demand, reserved: Mapping[str, frozenset[str]], now: float
    ) -> PlacementRequest:
        """The question that the scheduler answers for a demand.

        Args:
            demand: what is wanted.
            reserved: device ids, by neuron, that are kept for older demands.
            now: seconds on the monotonic clock.
        """
        fleet_state = self._fleet_state
        footprint = fleet_state.footprint(demand.profile)
        return PlacementRequest(
            profile=demand.profile,
            footprint=footprint,
            now=now,
            load_seconds=lambda neuron, resident: fleet_state.footprints.seconds(
                demand.profile, neuron, footprint.total_bytes, resident=resident
            ),
            strategy=fleet_state.policy.strategy,
            may_drain=demand.is_urgent(now, fleet_state.policy.patience),
            avoided=demand.avoided,
            only_neuron=demand.key.neuron,
            may_evict=demand.may_evict,
            reserved=reserved,
        )

    def obstacle(self, demand: Demand) -> str:
        """Why no instance is placed for a demand now: one is on its way already. Else empty."""
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
        """Finds a load that no caller waits for, on a neuron where this model could run."""
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

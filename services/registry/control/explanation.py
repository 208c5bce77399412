"""What placement would do with a model now, and why; changes nothing."""

from __future__ import annotations

import dataclasses

from services.registry.catalogue.profile import Profile
from services.registry.control.ready import ReadyInstances
from services.registry.control.request_builder import RequestBuilder
from services.registry.fleet.state import FleetState
from services.registry.placement import errors
from services.registry.placement.demand import Demand, DemandKey
from services.registry.placement.queue import PlacementQueue
from services.registry.scheduler import select
from services.registry.scheduler.cache import SchedulerCache
from services.registry.scheduler.request import PlacementDecision


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What placement would do with a model now, and why.

    Attributes:
        loaded_on: neurons with an instance that requests are sent to already.
        decision: what would be decided about a new instance; every neuron is a candidate.
        required_bytes: what the model takes in all; 0 where nobody knows.
        footprint_source: where that figure is from; see `Footprint.source`.
    """

    profile: Profile
    loaded_on: tuple[str, ...]
    decision: PlacementDecision
    required_bytes: int
    footprint_source: str


class Explainer:
    """Asks the scheduler what placement would ask it, and reports on every neuron."""

    def __init__(
        self,
        fleet_state: FleetState,
        cache: SchedulerCache,
        *,
        queue: PlacementQueue,
        requests: RequestBuilder,
        ready_instances: ReadyInstances,
    ) -> None:
        self._fleet_state = fleet_state
        self._cache = cache
        self._queue = queue
        self._requests = requests
        self._ready_instances = ready_instances

    def explain(self, name: str) -> Explanation:
        """What would happen to a request for a model or alias now.

        Raises:
            FleetError: MODEL_UNKNOWN.
        """
        profile = self._fleet_state.profile(name)
        if profile is None:
            raise errors.unknown_model(name)
        now = self._fleet_state.clock()
        key = DemandKey(profile.model)
        demand = self._queue.get(key) or Demand(key, profile, now)
        request = self._requests.request_for(demand, {}, now)
        routable = self._ready_instances.routable(profile)
        return Explanation(
            profile=profile,
            loaded_on=tuple(member.name for member, _ in routable),
            decision=select.explain(request, self._cache.index),
            required_bytes=request.footprint.total_bytes,
            footprint_source=request.footprint.source,
        )

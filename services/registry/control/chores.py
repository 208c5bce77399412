"""Does what the reconciler finds: unloads, updates, and wants of what should be there."""

from __future__ import annotations

from services.registry.control.placement_controller import PlacementController
from services.registry.control.reconcile import Reconciler
from services.registry.fleet.state import FleetState
from services.registry.placement.executor import PlacementExecutor


class Chores:
    """Everything that is ordered without anybody waiting for it."""

    def __init__(
        self,
        fleet_state: FleetState,
        reconciler: Reconciler,
        executor: PlacementExecutor,
        placements: PlacementController,
    ) -> None:
        self._fleet_state = fleet_state
        self._reconciler = reconciler
        self._executor = executor
        self._placements = placements

    def run(self, now: float) -> None:
        """Looks at the whole fleet once; each unload is ordered before the next is looked for."""
        for removal in self._reconciler.to_remove(now):
            self._executor.unloads.order(
                removal.neuron,
                removal.instance,
                removal.why,
                drain_seconds=self._fleet_state.policy.drain_timeout,
                reason=removal.reason,
            )
        for stale in self._reconciler.to_update():
            self._executor.updates.order(stale.neuron, stale.instance, stale.profile, now)
        for want in list(self._reconciler.to_add(now)):
            self._placements.want_instances(
                want.profile, want.replicas, neuron=want.neuron, may_evict=want.may_evict
            )

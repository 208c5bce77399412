"""What becomes of a demand when the job that was to meet it has ended."""

from __future__ import annotations

from typing import Final

from typing_extensions import override

from services.backplane.errors import FleetError, Reason
from services.registry.control.cooldowns import Cooldowns
from services.registry.fleet.state import FleetState
from services.registry.placement.demand import DemandKey
from services.registry.placement.executor import JobListener
from services.registry.placement.queue import PlacementQueue

# Loads of one demand that may fail, and neurons that may be lost under it, before it is given up.
_MOST_FAILURES: Final = 1
_MOST_LOSSES: Final = 2
# Failures that say something about the neuron or its worker, and nothing about the model.
_LOSSES: Final = frozenset({Reason.NEURON_LOST, Reason.WORKER_LOST, Reason.SHUTTING_DOWN})


class JobResults(JobListener):
    """Hears how jobs end, and decides whether their demands are tried again."""

    def __init__(
        self, fleet_state: FleetState, queue: PlacementQueue, cooldowns: Cooldowns
    ) -> None:
        self._fleet_state = fleet_state
        self._queue = queue
        self._cooldowns = cooldowns

    @override
    def on_ready(self, key: DemandKey) -> None:
        demand = self._queue.get(key)
        self._cooldowns.end(key.model)
        self._queue.look_again()
        if demand is not None:
            demand.job = None

    @override
    def on_failed(self, key: DemandKey, neuron: str, error: FleetError) -> None:
        """Tries once more, on another neuron if there is one; then tells everybody who waits.

        1. An error that its reason's table row says never to retry ends the demand.
        2. So does a second failed load.
        3. A lost neuron or worker is no failure of the model: a third loss ends the demand.
        """
        self._queue.look_again()
        demand = self._queue.get(key)
        if demand is None:
            return
        demand.job, demand.last_error = None, error
        demand.avoided[neuron] = f"it has just failed: {error.message}"
        is_loss = error.reason in _LOSSES
        demand.losses += is_loss
        demand.failures += not is_loss
        is_final = error.reason.row.retry.value == "never"
        if is_final or demand.failures > _MOST_FAILURES or demand.losses > _MOST_LOSSES:
            self._cooldowns.begin(key.model, error, self._fleet_state.clock())
            self._queue.close(demand, error)

    @override
    def on_overturned(self, key: DemandKey) -> None:
        self._queue.look_again()
        demand = self._queue.get(key)
        if demand is not None:
            demand.job = None
            demand.replans += 1

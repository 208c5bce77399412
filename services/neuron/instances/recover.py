"""What happens to instances when their worker dies, and when the next one is there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec
import structlog
from typing_extensions import override

from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.backplane.security.principals import SYSTEM
from services.neuron.engine_api.cache import CacheChanges
from services.neuron.engine_api.model import ModelStats
from services.neuron.instances.cache_board import CacheBoard
from services.neuron.instances.instances import Instance, Instances, State
from services.neuron.instances.running import RunningGeneration
from services.neuron.instances.worker_loads import WorkerLoads
from services.neuron.metrics import NeuronMetrics
from services.neuron.supervisor.link import WorkerLink
from services.neuron.supervisor.listener import WorkerKey, WorkerListener
from services.neuron.supervisor.supervisor import Supervisor

log = structlog.get_logger()

_TURN_SECONDS: Final = 15.0
"""Most that one suspected request keeps the next one waiting."""


class Recovery(WorkerListener):
    """Loads instances again after their worker died; listens to all workers."""

    def __init__(
        self,
        *,
        instances: Instances,
        supervisor: Supervisor,
        worker_loads: WorkerLoads,
        metrics: NeuronMetrics,
        faults: Faults,
        caches: CacheBoard,
    ) -> None:
        self._faults = faults
        self._caches = caches
        self._instances = instances
        self._supervisor = supervisor
        self._metrics = metrics
        self._worker_loads = worker_loads
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_stopped = False

    @override
    def on_stats(self, instance_id: str, stats: ModelStats) -> None:
        self._instances.note_stats(instance_id, stats)

    @override
    def on_cache(self, instance_id: str, news: CacheChanges) -> None:
        self._caches.note(instance_id, news)

    @override
    def on_worker_changed(self) -> None:
        self._instances.changes.bump()

    @override
    def on_worker_down(
        self, key: WorkerKey, error: FleetError, *, for_good: bool, planned: bool
    ) -> None:
        """Moves the worker's READY instances to RECOVERING, or to FAILED if no worker will come."""
        if not planned:
            self._metrics.worker_deaths.labels(key.engine).inc()
        for instance in self._instances.in_slot(key):
            instance.link, instance.stats = None, ModelStats()
            self._caches.forget(instance.instance_id)
            if for_good and instance.state in {State.READY, State.RECOVERING}:
                self._give_up(instance, error)
            elif instance.state is State.READY:
                self._instances.move(instance, State.RECOVERING, error.message)
        self._instances.changes.bump()

    @override
    def on_worker_up(self, key: WorkerKey, link: WorkerLink) -> None:
        """Loads the worker's RECOVERING instances again; their generations then go on.

        Those that a second worker died with go on one after the other, each once the one before is
        past the place or over: only what the next worker dies of is in it then.
        """
        self._instances.changes.bump()
        waiting = [
            instance
            for instance in self._instances.in_slot(key)
            if instance.state is State.RECOVERING
        ]
        # A worker may still come up while the daemon ends; nobody would end what is begun then.
        if waiting and not self._is_stopped:
            task = asyncio.create_task(self._bring_back(waiting), name="recovery")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """Ends all recoveries, and begins none any more."""
        self._is_stopped = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _bring_back(self, instances: list[Instance]) -> None:
        for instance in instances:
            try:
                await self._reload(instance)
            except FleetError as error:
                if error.reason is Reason.WORKER_LOST:  # the next process brings the next try
                    return
                if instance.state is State.RECOVERING:
                    self._give_up(instance, error)
            except Exception as error:  # noqa: BLE001 - the other instances come back
                self._give_up(instance, self._faults.note("recovery", error))
        await self._try_in_turn(instances)

    async def _reload(self, instance: Instance) -> None:
        assert instance.key is not None
        assert instance.plan is not None
        # whoever has caused the first load has not caused this one
        instance.plan = msgspec.structs.replace(instance.plan, principal=SYSTEM)
        slot = self._supervisor.slot(instance.key, self)
        await self._worker_loads.load(slot, instance)
        if instance.state is not State.RECOVERING:  # it is being unloaded meanwhile
            return
        self._instances.move(instance, State.READY)
        link = instance.link
        assert link is not None
        for generation in list(instance.running):
            if not generation.suspicion.is_strong:
                self._resume(generation, link)

    async def _try_in_turn(self, instances: Sequence[Instance]) -> None:
        suspects = [
            (generation, instance, instance.link)
            for instance in instances
            for generation in instance.running
            if generation.suspicion.is_strong
        ]
        for generation, instance, link in suspects:
            if link is None or instance.link is not link:  # the next process brings the next try
                return
            if generation in instance.running:
                self._resume(generation, link)
                await generation.suspicion.turn(_TURN_SECONDS)

    def _resume(self, generation: RunningGeneration, link: WorkerLink) -> None:
        try:
            generation.resume(link)
        except Exception as error:  # noqa: BLE001 - the others go on
            generation.fail(self._faults.note("recovery.resume", error))

    def _give_up(self, instance: Instance, error: FleetError) -> None:
        self._instances.move(instance, State.FAILED, error.message)
        for generation in list(instance.running):
            with self._faults.contained("recovery.fail"):
                generation.fail(FleetError(Reason.WORKER_LOST, error.message))

"""Loads models: one load per model and device set, joined by all who want it.

A load is a task of its own. It goes on while anybody waits for it; when the last caller leaves it
is abandoned and what it had taken is freed, unless it was detached.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import pathlib
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence

import msgspec
import structlog

from cortex.v1 import model_pb2 as model
from services.backplane.errors import FleetError, Reason
from services.backplane.first_ended import first_ended
from services.backplane.security.principals import SYSTEM
from services.backplane.timeouts import timeout
from services.neuron.engine_api.model import KvStorePlan, KvTier
from services.neuron.instances.adopt import offload_of, plan_of
from services.neuron.instances.assign import Assignments
from services.neuron.instances.instances import (
    Instance,
    Instances,
    State,
    shutting_down,
)
from services.neuron.instances.worker_loads import WorkerLoads
from services.neuron.metrics import NeuronMetrics
from services.neuron.settings import NeuronSettings
from services.neuron.sources.neighbour import Neighbour
from services.neuron.sources.resolver import Sources
from services.neuron.supervisor.listener import WorkerListener
from services.neuron.supervisor.supervisor import Supervisor
from services.neuron.weights.inspect import described

log = structlog.get_logger()


@dataclasses.dataclass(eq=False, slots=True)
class _Load:
    """One load under way."""

    instance: Instance
    task: asyncio.Task[None]
    callers: int = 0
    detached: bool = False


class Loader:
    """Loads instances; keeps the loads under way and those who wait for them."""

    def __init__(
        self,
        *,
        instances: Instances,
        sources: Sources,
        supervisor: Supervisor,
        listener: WorkerListener,
        settings: NeuronSettings,
        assignments: Assignments,
        worker_loads: WorkerLoads,
        measure: Callable[[], Awaitable[None]],
        metrics: NeuronMetrics,
        kv_tiers: tuple[KvTier, ...],
        ggml_ids: Mapping[str, str],
    ) -> None:
        self._kv_tiers = kv_tiers
        self._instances = instances
        self._sources = sources
        self._supervisor = supervisor
        self._listener = listener
        self._settings = settings
        self._assignments = assignments
        self._worker_loads = worker_loads
        self._measure = measure
        self._metrics = metrics
        self._ggml_ids = ggml_ids
        self._loads: dict[str, _Load] = {}

    async def load(
        self,
        spec: model.LoadSpec,
        *,
        detach: bool,
        neighbours: Sequence[Neighbour] = (),
        principal: str = SYSTEM,
    ) -> AsyncGenerator[model.LoadProgress | Instance]:
        """Loads a model, or joins its load, or finds it loaded.

        Args:
            spec: what is wanted.
            detach: finish even if every caller leaves.
            neighbours: other neurons that may have its files.
            principal: who is charged for it, if it begins one.

        Yields: progress, then the READY instance, last.

        Raises:
            FleetError: why it failed.
        """
        if not spec.model:
            raise FleetError(Reason.BAD_REQUEST, "No model is named.", field="spec.model")
        async with timeout(self._settings.load_seconds), _deadline_named():
            while (existing := self._existing(spec)) is not None:
                if existing.state is State.READY:
                    yield existing
                    return
                if existing.instance_id in self._loads:
                    break
                # It is recovering or on its way out: wait for what becomes of it.
                if existing.progress is not None:
                    yield existing.progress
                await self._instances.changes.after(self._instances.changes.version)
            load = (
                self._loads[existing.instance_id]
                if existing
                else self._begin(spec, neighbours, principal)
            )
            load.detached |= detach
            async with contextlib.aclosing(self._follow(load)) as steps:
                async for step in steps:
                    yield step

    async def abandon(self, instance: Instance) -> None:
        """Cancels a load, even if callers still wait for it; they get CANCELLED."""
        load = self._loads.get(instance.instance_id)
        if load is not None:
            load.task.cancel()
            await asyncio.wait({load.task})

    async def stop(self) -> None:
        """Ends all loads."""
        for load in list(self._loads.values()):
            await self.abandon(load.instance)

    def _existing(self, spec: model.LoadSpec) -> Instance | None:
        """The instance that this load is about. A failed one does not count: it is removed.

        Raises:
            FleetError: LOAD_FAILED, its worker is quarantined; an operator has to look first.
        """
        wanted = tuple(sorted(spec.device_ids))
        for instance in self._instances.of_model(spec.model):
            if instance.state is State.FAILED:
                if instance.key is not None and self._supervisor.is_quarantined(instance.key):
                    raise FleetError(
                        Reason.LOAD_FAILED,
                        f"Its worker died too often; unload it to try again. {instance.reason}",
                    )
                self._instances.remove(instance)
            elif not wanted or instance.key is None or instance.key.device_ids == wanted:
                return instance
        return None

    def _begin(
        self, spec: model.LoadSpec, neighbours: Sequence[Neighbour], principal: str
    ) -> _Load:
        if self._instances.is_closed:
            raise shutting_down()
        kept = model.LoadSpec()
        kept.CopyFrom(spec)
        instance = Instance(
            instance_id=f"{spec.model}-{uuid.uuid4().hex[:12]}", spec=kept, principal=principal
        )
        instance.progress = model.LoadProgress(phase=model.LOAD_PHASE_RESOLVING)
        self._instances.add(instance)
        task = asyncio.create_task(self._run(instance, neighbours), name=f"load-{spec.model}")
        # A detached load may fail with nobody there to hear it; its log line has been written.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        load = self._loads[instance.instance_id] = _Load(instance, task)
        return load

    async def _follow(self, load: _Load) -> AsyncGenerator[model.LoadProgress | Instance]:
        load.callers += 1
        changes, instance = self._instances.changes, load.instance
        told: model.LoadProgress | None = None
        try:
            while not load.task.done():
                version = changes.version
                if instance.progress is not None and instance.progress is not told:
                    told = instance.progress
                    yield told
                    continue
                await first_ended(changes.after(version), kept=(load.task,))
            if load.task.cancelled():
                raise FleetError(Reason.CANCELLED, "The load was abandoned.")
            load.task.result()
            yield instance
        finally:
            load.callers -= 1
            if not load.callers and not load.detached:
                load.task.cancel()

    async def _run(self, instance: Instance, neighbours: Sequence[Neighbour]) -> None:
        started = time.monotonic()
        outcome = "failed"
        try:
            async with timeout(self._settings.load_seconds), _deadline_named():
                await self._bring_up(instance, neighbours)
                await self._measure()  # READY must not be told with what was free before
            _require_worker(instance)
            instance.loaded_at = time.time()
            instance.load_seconds = time.monotonic() - started
            self._instances.move(instance, State.READY)
            outcome = "ready"
        except asyncio.CancelledError:
            outcome = "abandoned"
            raise
        except FleetError as error:
            log.warning(
                "model.load_failed",
                model=instance.model,
                reason=error.reason.value,
                message=error.message,
            )
            raise
        finally:
            del self._loads[instance.instance_id]
            self._assignments.release(instance.instance_id)
            self._metrics.note_load(instance.model, outcome, time.monotonic() - started)
            if outcome != "ready":
                self._instances.remove(instance)
                # Shielded: a second cancellation must not leave the worker behind.
                await asyncio.shield(self._vacate(instance))

    async def _vacate(self, instance: Instance) -> None:
        if instance.key is not None and not self._instances.in_slot(instance.key):
            await self._supervisor.release(instance.key)
            await self._measure()  # whoever plans the next try goes by what is free now

    async def _bring_up(self, instance: Instance, neighbours: Sequence[Neighbour]) -> None:
        spec = instance.spec

        def on_bytes(done: int, total: int) -> None:
            self._instances.note_progress(
                instance,
                model.LoadProgress(
                    phase=model.LOAD_PHASE_DOWNLOADING, bytes_done=done, bytes_total=total
                ),
            )

        weights = await self._sources.resolve(spec, on_bytes, neighbours)
        drafts = [spec.draft_source] if spec.draft_source else []
        draft = [await self._sources.locate(text, "", on_bytes) for text in drafts]
        adapters = [await self._sources.path(text, "", on_bytes) for text in spec.adapters]
        placement = await self._assignments.assign(instance.instance_id, spec, weights)
        key = instance.key = placement.key
        instance.layers_left = placement.division.layers_left if placement.division else 0
        instance.weights = await asyncio.to_thread(described, spec.model, weights)
        settled = self._assignments.settled(spec, weights)
        instance.plan = msgspec.structs.replace(
            plan_of(instance, key.engine, weights, self._settings, spec=settled),
            memory_bytes=placement.most_bytes,
            offload=offload_of(placement.division, self._ggml_ids, self._settings.llamacpp),
            draft_path=str(draft[0].path) if draft else None,
            adapter_paths=tuple(map(str, adapters)),
            kv_store=self._kv_store(instance.weights.fingerprint),
            confined=await asyncio.to_thread(self._sources.confined, spec),
        )
        self._instances.note_progress(
            instance,
            model.LoadProgress(phase=model.LOAD_PHASE_LOADING, bytes_total=weights.bytes),
        )
        slot = self._supervisor.slot(key, self._listener)
        await self._worker_loads.load(slot, instance)

    def _kv_store(self, fingerprint: str) -> KvStorePlan | None:
        """Where the cache of files of this fingerprint is saved; nowhere if they have none."""
        if not fingerprint or not self._kv_tiers:
            return None
        chosen = self._settings.kv_store
        key_file = str(pathlib.Path(chosen.key_file).expanduser()) if chosen.key_file else ""
        keeps_named = chosen.keep_named or bool(key_file)
        return KvStorePlan(self._kv_tiers, fingerprint, keeps_named, key_file)


def _require_worker(instance: Instance) -> None:
    """Refuses to tell of what is gone: `Recovery` brings back only what was READY."""
    if instance.link is None:
        raise FleetError(Reason.WORKER_LOST, "The worker died right behind the load.")


@contextlib.asynccontextmanager
async def _deadline_named() -> AsyncGenerator[None]:
    """A load that took too long says so, instead of a bare TimeoutError."""
    try:
        yield
    except TimeoutError as error:
        raise FleetError(Reason.DEADLINE, "The load took too long.") from error

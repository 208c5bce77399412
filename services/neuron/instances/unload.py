"""Unloads models: admits nothing more, waits for what runs, frees the memory.

An unload that has begun goes on, whoever watches it: an instance that drains never serves again.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, Awaitable, Callable

import structlog

from services.backplane.errors import FleetError, Reason
from services.backplane.first_ended import first_ended
from services.backplane.security.principals import SYSTEM
from services.backplane.timeouts import timeout
from services.neuron.instances.instances import Instance, Instances, State
from services.neuron.instances.load import Loader
from services.neuron.instances.reclaim import Reclaiming
from services.neuron.supervisor.listener import WorkerKey
from services.neuron.supervisor.supervisor import Supervisor

_FREE_SECONDS = 30.0

log = structlog.get_logger()


@dataclasses.dataclass(frozen=True, slots=True)
class Draining:
    """Step of an unload: nothing new is admitted, requests that run go on.

    Attributes:
        active: how many.
    """

    active: int


@dataclasses.dataclass(frozen=True, slots=True)
class Releasing:
    """Step of an unload: nothing runs any more, the worker frees the memory."""


@dataclasses.dataclass(frozen=True, slots=True)
class Freed:
    """Last step of an unload: the instance is gone.

    Attributes:
        instance_id: which it was.
        freed_bytes: memory that came free, over all devices.
    """

    instance_id: str
    freed_bytes: int


class Unloader:
    """Unloads instances; keeps the unloads under way."""

    def __init__(
        self,
        *,
        instances: Instances,
        loader: Loader,
        supervisor: Supervisor,
        reclaiming: Reclaiming,
        measure: Callable[[], Awaitable[None]],
    ) -> None:
        """Unloads nothing yet.

        Args:
            instances: all of this neuron.
            loader: ends loads that are to be unloaded before they are ready.
            supervisor: ends workers whose last instance goes.
            reclaiming: asks the driver whether the memory has come back.
            measure: measures the devices anew; the report that an instance is gone must not come
                with the free memory of a time when it was there.
        """
        self._instances = instances
        self._measure = measure
        self._reclaiming = reclaiming
        self._loader = loader
        self._supervisor = supervisor
        self._tasks: dict[str, asyncio.Task[int]] = {}

    def targets(self, *, instance_id: str, name: str) -> list[Instance]:
        """The instances that an unload order names, by instance id or by model.

        Raises:
            FleetError: INSTANCE_GONE or NOT_FOUND, there is none.
        """
        if instance_id:
            return [self._instances.of_id(instance_id)]
        found = self._instances.of_model(name)
        if not found:
            raise FleetError(Reason.NOT_FOUND, f"The model {name!r} is not loaded here.")
        return found

    async def unload(
        self, instance: Instance, drain_seconds: float, *, principal: str = SYSTEM
    ) -> AsyncGenerator[Draining | Releasing | Freed]:
        """Unloads one instance, or joins its unload.

        Args:
            instance: which.
            drain_seconds: how long its requests may take; then they are ended with an error.
            principal: who is charged for it, if it begins one.

        Yields: what it waits for; `Freed` is last.
        """
        task = self._tasks.get(instance.instance_id)
        if task is None:
            if instance.state in {State.READY, State.RECOVERING}:
                self._instances.move(instance, State.DRAINING)
            task = asyncio.create_task(self._run(instance, drain_seconds, principal))
            self._tasks[instance.instance_id] = task
        told: Draining | Releasing | None = None
        while not task.done():
            version = self._instances.changes.version
            stand = (
                Draining(len(instance.running)) if instance.state is State.DRAINING else Releasing()
            )
            if stand != told:
                told = stand
                yield stand
                continue
            await first_ended(self._instances.changes.after(version), kept=(task,))
        yield Freed(instance.instance_id, task.result())

    async def stop(self) -> None:
        """Abandons all unloads where they are; the process is about to end."""
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        await self._reclaiming.stop()

    async def _run(self, instance: Instance, drain_seconds: float, principal: str) -> int:
        try:
            if instance.state is State.LOADING:
                await self._loader.abandon(instance)
                return 0
            if instance.state is State.DRAINING:
                await self._drain(instance, drain_seconds)
            self._instances.move(instance, State.UNLOADING)
            return await self._free(instance, principal)
        finally:
            self._tasks.pop(instance.instance_id, None)
            self._instances.remove(instance)

    async def _drain(self, instance: Instance, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with timeout(seconds):
                while not instance.is_quiet:
                    await self._instances.changes.after(self._instances.changes.version)
        for generation in list(instance.running):
            generation.fail(
                FleetError(
                    Reason.INSTANCE_GONE, f"{instance.model} was unloaded and its time was over."
                )
            )

    async def _free(self, instance: Instance, principal: str) -> int:
        key = instance.key
        freed = await self._release(instance, key, principal) if key is not None else 0
        await self._measure()
        return freed

    async def _release(self, instance: Instance, key: WorkerKey, principal: str) -> int:
        """Frees the memory and returns how much came free, by the driver where it tells."""
        held = instance.info.memory_bytes if instance.info else {}
        before = await self._reclaiming.used(key)
        told = await self._ask_worker(instance, principal)
        is_last = self._instances.in_slot(key) == [instance]
        if is_last:
            # The last instance takes the process with it: all of its memory comes back.
            # Unloading what a quarantine has failed is how an operator lifts it.
            await self._supervisor.release(key, forgive=True)
        freed_bytes, kept_bytes = await self._reclaiming.reclaimed(key, before, held)
        if kept_bytes or (told is None and not is_last):
            log.warning(
                "model.memory_kept", instance_id=instance.instance_id, kept_bytes=kept_bytes
            )
            if not is_last:
                why = f"it kept {kept_bytes >> 20} MiB of {instance.model}, which was unloaded"
                self._reclaiming.recycle(key, why)
        if freed_bytes is not None:
            return freed_bytes
        return max(told or 0, sum(held.values()) if is_last else 0)

    async def _ask_worker(self, instance: Instance, principal: str) -> int | None:
        """Has the worker free the model; None where it does not answer."""
        link = instance.link
        if link is None or link.is_lost:  # with its process its memory went
            return 0
        try:
            async with timeout(_FREE_SECONDS):
                return await link.unload(instance.instance_id, principal=principal)
        except (TimeoutError, FleetError) as error:
            log.warning("model.unload_failed", instance_id=instance.instance_id, error=str(error))
            return None

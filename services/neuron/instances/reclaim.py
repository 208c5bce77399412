"""Sees to it that an unload really gives the device's memory back.

The driver is asked, not the library that was to free it. Where too much stays, the worker process
is replaced: nothing outlives its process on a device. What else lives there is loaded again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol

import structlog

from services.neuron.instances.instances import Instances
from services.neuron.supervisor.listener import WorkerKey
from services.neuron.supervisor.supervisor import Supervisor

TOLERANCE_BYTES: Final = 64 << 20
"""What may stay on a device: its allocator's fragments, kernels that were compiled meanwhile."""
SETTLE_SECONDS: Final = 3.0
_GLANCE_SECONDS: Final = 0.1

log = structlog.get_logger()


class MemoryReader(Protocol):
    """Asks the GPUs' driver how much memory is in use."""

    def used_bytes(self, device_ids: Sequence[str]) -> Mapping[str, int]:
        """Memory in use now, by whomever; only of devices whose driver tells. May block."""
        ...


class Reclaimed(NamedTuple):
    """How much memory an unload has freed.

    Attributes:
        freed_bytes: by which the use of all devices has sunk; None where no driver tells.
        kept_bytes: most that stayed on one device beyond what was to be expected.
    """

    freed_bytes: int | None
    kept_bytes: int = 0


class Reclaiming:
    """Measures unloads, and replaces workers that keep what they should have freed."""

    def __init__(
        self,
        *,
        reader: MemoryReader,
        instances: Instances,
        supervisor: Supervisor,
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        """Has nothing to do yet.

        Args:
            reader: asks the driver.
            instances: tell when nobody runs on a worker.
            supervisor: replaces the process.
            settle_seconds: how long a driver may take to show what has come free.
        """
        self._reader = reader
        self._instances = instances
        self._supervisor = supervisor
        self._settle_seconds = settle_seconds
        self._recycling: dict[WorkerKey, asyncio.Task[None]] = {}

    async def used(self, key: WorkerKey) -> Mapping[str, int]:
        """Bytes in use on a worker's devices, measured before its model is unloaded."""
        return await asyncio.to_thread(self._reader.used_bytes, key.device_ids)

    async def reclaimed(
        self, key: WorkerKey, before: Mapping[str, int], held: Mapping[str, int]
    ) -> Reclaimed:
        """What an unload has freed, by the driver's word.

        1. Where no driver tells (CPU), nothing is measured.
        2. Each device should show what it showed before, less what the model held there. Up to
           `TOLERANCE_BYTES` more is well, and the answer is given at once.
        3. Otherwise the driver is asked again until `settle_seconds` are over; what is still in
           use then counts as kept, and the caller has the worker replaced.

        Args:
            key: the worker.
            before: as `used` told before the unload.
            held: what the model held, by device.
        """
        if not before:
            return Reclaimed(None)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._settle_seconds
        while True:
            now = await self.used(key)
            kept = [
                now[device] - (used - max(0, held.get(device, 0)))
                for device, used in before.items()
                if device in now
            ]
            is_well = max(kept, default=0) <= TOLERANCE_BYTES
            if is_well or loop.time() >= deadline:
                freed = sum(max(0, used - now.get(device, used)) for device, used in before.items())
                return Reclaimed(freed, 0 if is_well else max(kept))
            await asyncio.sleep(_GLANCE_SECONDS)

    def recycle(self, key: WorkerKey, why: str) -> None:
        """Replaces a worker's process once it has neither tasks nor loads."""
        if key not in self._recycling:
            task = asyncio.create_task(self._recycle(key, why), name="recycle")
            self._recycling[key] = task
            task.add_done_callback(lambda _: self._recycling.pop(key, None))

    async def stop(self) -> None:
        """Replaces nothing more."""
        tasks = list(self._recycling.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _recycle(self, key: WorkerKey, why: str) -> None:
        changes = self._instances.changes
        while any(not instance.is_quiet for instance in self._instances.in_slot(key)):
            await changes.after(changes.version)
        if self._instances.in_slot(key):
            log.warning("worker.recycled", engine=key.engine, devices=key.device_ids, why=why)
            await self._supervisor.recycle(key, why)

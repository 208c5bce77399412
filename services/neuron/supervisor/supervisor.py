"""Keeps one worker process per device set alive while somebody needs it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping
from types import MappingProxyType

from services.backplane.process.faults import Faults
from services.neuron.devices.watch import DeviceWatch, FaultReader
from services.neuron.devices.xid_faults import DeviceFault
from services.neuron.settings import WorkerLimits
from services.neuron.supervisor.listener import SlotView, WorkerKey, WorkerListener
from services.neuron.supervisor.process import WorkerCommand, python_worker
from services.neuron.supervisor.slot import WorkerSlot


class Supervisor:
    """All workers of the neuron, one for each device set that is in use."""

    def __init__(
        self,
        *,
        limits: WorkerLimits,
        memory_bytes: int,
        device_faults: FaultReader,
        faults: Faults,
        command: WorkerCommand = python_worker,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Starts no process yet.

        Args:
            limits: of every worker.
            memory_bytes: most resident memory of one worker.
            device_faults: asks the devices' driver.
            faults: told of exceptions.
            command: command line of a worker.
            environment: variables that hand settings on to a worker.
        """
        self._device_watch = DeviceWatch(device_faults, on_lasting=self._on_lasting_fault)
        self._limits = limits
        self._faults = faults
        self._memory_bytes = memory_bytes
        self._command = command
        self._environment = environment
        self._task_ids = itertools.count(1)
        self._slots: dict[WorkerKey, WorkerSlot] = {}

    def slot(self, key: WorkerKey, listener: WorkerListener) -> WorkerSlot:
        """The slot of a device set, made and started on first use."""
        slot = self._slots.get(key)
        if slot is None:
            slot = self._slots[key] = WorkerSlot(
                key,
                listener=listener,
                limits=self._limits,
                memory_bytes=self._memory_bytes,
                command=self._command,
                environment=self._environment,
                task_ids=self._task_ids,
                device_watch=self._device_watch,
                faults=self._faults,
            )
        return slot

    def is_quarantined(self, key: WorkerKey) -> bool:
        """True where a slot's workers died too often."""
        slot = self._slots.get(key)
        return slot is not None and slot.view.state == "quarantined"

    async def release(self, key: WorkerKey, *, forgive: bool = False) -> None:
        """Ends a slot that holds no instance any more, so that all of its memory is given back.

        Args:
            key: which.
            forgive: a quarantined slot goes too, and the next one starts afresh; otherwise it
                stays, because its state is what an operator has to see.
        """
        slot = self._slots.get(key)
        if slot is not None and (forgive or not self.is_quarantined(key)):
            del self._slots[key]
            await slot.stop()

    async def recycle(self, key: WorkerKey, why: str) -> None:
        """Replaces a slot's process by a new one, which is no death; its instances come back.

        Args:
            key: which; one that does not run is left alone.
            why: in words.
        """
        slot = self._slots.get(key)
        if slot is not None:
            await slot.recycle(why)

    async def look_at_devices(self) -> None:
        """Reads the devices' faults since the last call; ends workers on devices lost for good."""
        await self._device_watch.look()

    def _on_lasting_fault(self, fault: DeviceFault) -> None:
        """A device is of no use any more: ends every worker on it, and starts no other there."""
        for key, slot in self._slots.items():
            if fault.device_id in key.device_ids:
                slot.condemn(f"its device failed: {fault}")

    @property
    def view(self) -> Mapping[WorkerKey, SlotView]:
        """The state of every slot, by worker."""
        return {key: slot.view for key, slot in self._slots.items()}

    async def stop(self) -> None:
        """Ends all workers."""
        slots, self._slots = list(self._slots.values()), {}
        await asyncio.gather(*(slot.stop() for slot in slots))

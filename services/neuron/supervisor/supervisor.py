"""Keeps one worker process per device set alive while somebody needs it."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from typing_extensions import override

from services.backplane.errors import FleetError
from services.backplane.process.faults import Faults
from services.neuron.devices.watch import DeviceWatch, FaultReader
from services.neuron.devices.xid_faults import DeviceFault
from services.neuron.engine_api.cache import CacheChanges
from services.neuron.engine_api.model import ModelStats
from services.neuron.settings import WorkerLimits
from services.neuron.supervisor.device_use import DeviceUse
from services.neuron.supervisor.link import WorkerLink
from services.neuron.supervisor.listener import SlotView, WorkerKey, WorkerListener
from services.neuron.supervisor.process import WorkerCommand, python_worker
from services.neuron.supervisor.slot import WorkerSlot

SPARE_SECONDS: Final = 60.0
"""A process that was started ahead is kept so long for whoever takes it."""
NEXT_SPARE_SECONDS: Final = 5.0
"""So long after one was taken the next is started: not beside the load that has taken it."""


class _LateListener(WorkerListener):
    """Tells nobody of a death before its slot is taken: the instances there are another slot's."""

    def __init__(self, listener: WorkerListener) -> None:
        self._listener = listener
        self.is_taken = False

    @override
    def on_stats(self, instance_id: str, stats: ModelStats) -> None:
        self._listener.on_stats(instance_id, stats)

    @override
    def on_cache(self, instance_id: str, news: CacheChanges) -> None:
        self._listener.on_cache(instance_id, news)

    @override
    def on_worker_up(self, key: WorkerKey, link: WorkerLink) -> None:
        if self.is_taken:
            self._listener.on_worker_up(key, link)

    @override
    def on_worker_down(
        self, key: WorkerKey, error: FleetError, *, for_good: bool, planned: bool
    ) -> None:
        if self.is_taken:
            self._listener.on_worker_down(key, error, for_good=for_good, planned=planned)

    @override
    def on_worker_changed(self) -> None:
        self._listener.on_worker_changed()


@dataclasses.dataclass(eq=False, slots=True)
class _Spare:
    """A slot that was started ahead."""

    slot: WorkerSlot
    listener: _LateListener

    def taken(self) -> WorkerSlot:
        """The slot, whose deaths are told from now on."""
        self.listener.is_taken = True
        return self.slot


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
        self._spares: dict[WorkerKey, _Spare] = {}
        self._dropping: set[asyncio.Task[None]] = set()
        self._device_use = DeviceUse()

    def slot(self, key: WorkerKey, listener: WorkerListener) -> WorkerSlot:
        """The slot of a device set, made and started on first use."""
        slot = self._slots.get(key)
        if slot is None:
            spare = self._spares.pop(key, None)
            if spare is None:
                slot = self._started(key, listener)
            else:
                slot = spare.taken()
                # who swaps once is likely to swap again
                asyncio.get_running_loop().call_later(
                    NEXT_SPARE_SECONDS, self._prepare_next, key, listener
                )
            self._slots[key] = slot
        return slot

    def prepare(self, key: WorkerKey, listener: WorkerListener) -> None:
        """Starts the process of the next slot of a device set while the present one is on its way.

        It is ended where nobody has taken it after `SPARE_SECONDS`.
        """
        if key not in self._spares:
            ear = _LateListener(listener)
            self._spares[key] = _Spare(self._started(key, ear), ear)
            asyncio.get_running_loop().call_later(SPARE_SECONDS, self._drop, self._spares[key])

    def _prepare_next(self, key: WorkerKey, listener: WorkerListener) -> None:
        if key in self._slots:
            self.prepare(key, listener)

    def _drop(self, spare: _Spare) -> None:
        if self._spares.get(spare.slot.key) is spare:
            del self._spares[spare.slot.key]
            task = asyncio.create_task(spare.slot.stop(), name="spare")
            self._dropping.add(task)
            task.add_done_callback(self._dropping.discard)

    def _started(self, key: WorkerKey, listener: WorkerListener) -> WorkerSlot:
        return WorkerSlot(
            key,
            listener=listener,
            limits=self._limits,
            memory_bytes=self._memory_bytes,
            command=self._command,
            environment=self._environment,
            task_ids=self._task_ids,
            device_watch=self._device_watch,
            device_use=self._device_use,
            faults=self._faults,
        )

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
    def device_use(self) -> DeviceUse:
        """Device time by principal, over all workers."""
        return self._device_use

    @property
    def view(self) -> Mapping[WorkerKey, SlotView]:
        """The state of every slot, by worker."""
        return {key: slot.view for key, slot in self._slots.items()}

    async def stop(self) -> None:
        """Ends all workers."""
        slots = [*self._slots.values(), *(spare.slot for spare in self._spares.values())]
        self._slots, self._spares = {}, {}
        await asyncio.gather(*(slot.stop() for slot in slots), *self._dropping)

"""Watches the GPUs through their driver: what went wrong there, and whose memory is still held."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol

import structlog

from services.backplane.timeouts import timeout
from services.neuron.devices.xid_faults import DeviceFault

_RECENT_SECONDS: Final = 10.0
"""So long an event may explain a worker's death."""
_ANSWER_SECONDS: Final = 1.0
"""A driver in trouble may not answer; a death is told without its word then."""
_VACATE_SECONDS: Final = 10.0
_GLANCE_SECONDS: Final = 0.1

log = structlog.get_logger()


class FaultReader(Protocol):
    """The two questions that are put to the GPUs' driver. Both block until it answers."""

    def faults(self) -> list[DeviceFault]:
        """Critical events since the last call."""
        ...

    def is_held(self, device_ids: Sequence[str], pids: Collection[int]) -> bool:
        """Whether processes have memory on any of these devices, as far as the driver tells."""
        ...


class DeviceWatch:
    """Remembers each device's last fault, so that a worker's death can be explained by it.

    Reports the faults that a new process would not cure, after which a device takes no work.
    """

    def __init__(
        self, reader: FaultReader, *, on_lasting: Callable[[DeviceFault], None] = lambda _: None
    ) -> None:
        """Has seen nothing yet.

        Args:
            reader: asks the driver.
            on_lasting: told of a fault after which no process can work on its device.
        """
        self._reader = reader
        self._last: dict[str, tuple[float, DeviceFault]] = {}
        self._on_lasting = on_lasting

    async def look(self) -> None:
        """Reads the faults since the last look from the driver; logs and remembers each of them."""
        for fault in await asyncio.to_thread(self._reader.faults):
            self._last[fault.device_id] = (time.monotonic(), fault)
            log.error(
                "device.fault", device=fault.device_id, xid=fault.xid, lasting=fault.is_lasting
            )
            if fault.is_lasting:
                self._on_lasting(fault)

    async def cause(self, device_ids: Sequence[str]) -> str:
        """What the driver reported of a worker's devices just now, for the words of an error.

        Empty where it reported nothing, or does not answer in time.
        """
        try:
            async with timeout(_ANSWER_SECONDS):
                await self.look()
        except TimeoutError:
            log.warning("device.silent", devices=device_ids)
        now = time.monotonic()
        recent = [self._last[one] for one in device_ids if one in self._last]
        return "; ".join(str(fault) for at, fault in recent if now - at < _RECENT_SECONDS)

    async def vacated(self, device_ids: Sequence[str], pids: Collection[int]) -> None:
        """Waits until the driver has freed the memory of dead processes, for a bounded time."""
        try:
            async with timeout(_VACATE_SECONDS):
                is_held = True
                while is_held:
                    is_held = await asyncio.to_thread(self._reader.is_held, device_ids, pids)
                    await asyncio.sleep(_GLANCE_SECONDS if is_held else 0)
        except TimeoutError:
            log.warning("worker.memory_held", devices=device_ids, pids=pids)

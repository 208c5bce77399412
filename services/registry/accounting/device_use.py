"""Device time and energy by principal as neurons report it: kept, and stored every few seconds.

A neuron tells totals since it started, so nothing is lost or counted twice however often it tells
them, and whichever registry takes them in. What it has not told when it is killed is lost.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.process.faults import Faults
from services.registry.accounting.device_bounds import DeviceBounds
from services.registry.accounting.usage import UsageLedger
from services.registry.store.device_growth import MOST_GROWTH, MOST_SOURCE_ROWS
from services.registry.store.ledger import DeviceTotal
from services.registry.store.store import StoreError

_MOST_NAME_CHARACTERS: Final = 1024

# The name of a neuron, and one of its lives.
_Life = tuple[str, str]
log = structlog.get_logger()


class DeviceUseIntake:
    """Keeps the reported totals until they are stored.

    Args:
        usage: where they go.
        clock: seconds, monotonic; by it no neuron can have worked for longer than it could.
    """

    def __init__(self, usage: UsageLedger, clock: Callable[[], float] = time.monotonic) -> None:
        self._usage = usage
        self._bounds = DeviceBounds(clock)
        self._known: set[str] = set()
        self._pending: dict[_Life, dict[tuple[str, str], DeviceTotal]] = {}

    def take(self, status: neuron.NeuronStatus) -> None:
        """Moves the device time out of a report, so that those who watch the fleet do not get it.

        A neuron speaks for itself alone, and of no more than a store can keep.
        """
        report, identity = status.report, status.identity
        self._bounds.heard(identity.name, len(report.devices))
        if not report.device_use:
            return
        # not another one's life
        known = self._pending.setdefault((identity.name, identity.incarnation_id), {})
        for one in report.device_use:
            is_new = (one.principal, one.model) not in known
            if (is_new and len(known) >= MOST_SOURCE_ROWS) or not _can_be_kept(one):
                continue
            told = (
                one.prefill_microseconds,
                one.decode_microseconds,
                one.load_microseconds,
                one.unload_microseconds,
                one.millijoules,
            )
            # of two streams of one neuron the older one may be heard later
            whose = (one.principal, one.model)
            before = known.get(whose, DeviceTotal(*whose, 0, 0, 0, 0))
            known[whose] = DeviceTotal(*whose, *map(max, told, before[2:]))
        del report.device_use[:]

    async def run(self, faults: Faults) -> None:
        """Writes for ever, as often as the store wants it."""
        while True:
            with faults.contained("device-use"):
                await self.write()
            await asyncio.sleep(self._usage.write_seconds)

    async def write(self) -> None:
        """Stores what has been reported; what fails is tried again the next time."""
        pending, self._pending = self._pending, {}
        try:
            while pending:
                life = next(iter(pending))
                await self._store(life, list(pending[life].values()))
                del pending[life]
        except StoreError:
            pass
        finally:  # also when it is cancelled: a total that was written already adds nothing
            for life, kept in pending.items():
                self._pending[life] = kept | self._pending.get(life, {})

    async def _store(self, life: _Life, totals: list[DeviceTotal]) -> None:
        """Stores totals, as far as the clock says that they can be.

        Raises:
            StoreError: they could not be stored.
        """
        name, source = life[0], "/".join(life)
        if name not in self._known:
            told_at = await self._usage.devices_told_at(source)
            if told_at is not None:
                self._bounds.was_away(name, max(0.0, time.time() - told_at))
            self._known.add(name)
        most = min(self._bounds.left(name), MOST_GROWTH)
        believed = await self._usage.note_devices(source, totals, most)
        if self._bounds.told(name, believed):
            log.warning("device_use.clamped", neuron_id=name, believed_seconds=believed / 1e6)


def _can_be_kept(one: neuron.DeviceUse) -> bool:
    """False for names that no store takes, with which others would wait in vain to be written."""
    names = one.principal + one.model
    return len(names) <= _MOST_NAME_CHARACTERS and "\0" not in names

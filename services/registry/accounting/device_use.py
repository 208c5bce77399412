"""Device time by principal as neurons report it: kept in memory, stored once a second.

A neuron tells totals since it started, so nothing is lost or counted twice however often it tells
them, and whichever registry takes them in. What it has not told when it is killed is lost.
"""

from __future__ import annotations

import asyncio
from typing import Final

from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.process.faults import Faults
from services.registry.accounting.usage import UsageLedger
from services.registry.store.ledger import MOST_SOURCE_ROWS, DeviceTotal
from services.registry.store.store import StoreError

_WRITE_SECONDS: Final = 1.0
_MOST_NAME_CHARACTERS: Final = 1024


class DeviceUseIntake:
    """Keeps the reported totals until they are stored.

    Args:
        usage: where they go.
    """

    def __init__(self, usage: UsageLedger) -> None:
        self._usage = usage
        self._pending: dict[str, dict[tuple[str, str], DeviceTotal]] = {}

    def take(self, status: neuron.NeuronStatus) -> None:
        """Moves the device time out of a report, so that those who watch the fleet do not get it.

        A neuron speaks for itself alone, and of no more than a store can keep.
        """
        report = status.report
        if not report.device_use:
            return
        identity = status.identity
        source = f"{identity.name}/{identity.incarnation_id}"  # not another one's life
        known = self._pending.setdefault(source, {})
        for one in report.device_use:
            is_new = (one.principal, one.model) not in known
            if (is_new and len(known) >= MOST_SOURCE_ROWS) or not _can_be_kept(one):
                continue
            told = (
                one.prefill_microseconds,
                one.decode_microseconds,
                one.load_microseconds,
                one.unload_microseconds,
            )
            # of two streams of one neuron the older one may be heard later
            before = known.get((one.principal, one.model), (one.principal, one.model, 0, 0, 0, 0))
            most = map(max, told, before[2:])
            known[one.principal, one.model] = DeviceTotal(one.principal, one.model, *most)
        del report.device_use[:]

    async def run(self, faults: Faults) -> None:
        """Writes every second for ever."""
        while True:
            with faults.contained("device-use"):
                await self.write()
            await asyncio.sleep(_WRITE_SECONDS)

    async def write(self) -> None:
        """Stores what has been reported; what fails is tried again the next time."""
        pending, self._pending = self._pending, {}
        try:
            while pending:
                source = next(iter(pending))
                await self._usage.note_devices(source, list(pending[source].values()))
                del pending[source]
        except StoreError:
            pass
        finally:  # also when it is cancelled: a total that was written already adds nothing
            for name, kept in pending.items():
                self._pending[name] = kept | self._pending.get(name, {})


def _can_be_kept(one: neuron.DeviceUse) -> bool:
    """False for names that no store takes, with which others would wait in vain to be written."""
    names = one.principal + one.model
    return len(names) <= _MOST_NAME_CHARACTERS and "\0" not in names

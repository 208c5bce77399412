"""What principals have used by hour."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from services.registry.store.device_growth import MOST_GROWTH
from services.registry.store.ledger import (
    DeviceTotal,
    Ledger,
    UsageQuery,
    UsageRow,
)

HOUR: Final = 3600
_DAY: Final = 86_400
# Windows of which it is known what was used in them.
_MOST_SUMS: Final = 10_000


class UsageLedger:
    """Adds the reports of gateways and neurons up in the store, each report once.

    Args:
        ledger: where they are stored.
        kept_days: how long what was used is kept.
        grown: told of all time of devices once.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        kept_days: int,
        grown: Callable[[Sequence[DeviceTotal]], None] = lambda _: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ledger = ledger
        self._kept_seconds = kept_days * _DAY
        self._clock = clock
        self._swept_at = 0.0
        self._grown: Callable[[Sequence[DeviceTotal]], None] = grown
        # by principal, then by the beginning of a window
        self._device_use: dict[str, dict[int, int]] = {}
        self._changing = asyncio.Lock()

    @property
    def write_seconds(self) -> float:
        """How often what neurons tell is stored."""
        return self._ledger.device_use_seconds

    async def report(self, holder: str, number: int, rows: Sequence[UsageRow]) -> bool:
        """Adds what a gateway reports; False where it has reported that before.

        Raises:
            StoreError: it could not be stored.
        """
        now = self._clock()
        if now - self._swept_at >= HOUR:
            await self._ledger.forget_usage(int(now - self._kept_seconds) // HOUR * HOUR)
            self._swept_at = now
        return await self._ledger.add_usage(holder, number, rows)

    async def devices_told_at(self, source: str) -> int | None:
        """When the totals of one neuron's life were last stored, seconds since the epoch.

        None where they never were.

        Raises:
            StoreError: it cannot be told.
        """
        return await self._ledger.device_use_told_at(source)

    async def note_devices(
        self, source: str, totals: Sequence[DeviceTotal], most: int = MOST_GROWTH
    ) -> int:
        """Adds the growth of one neuron's totals since they were last stored.

        Args:
            source: names that life.
            totals: since it began.
            most: microseconds that are added; what is beyond is put off.

        Returns: microseconds that were added.

        Raises:
            StoreError: they could not be stored.
        """
        now = int(self._clock())
        async with self._changing:
            hour = now // HOUR * HOUR
            grown = await self._ledger.add_device_use(source, hour, totals, most)
            for one in grown:
                sums = self._device_use.get(one.principal, {})
                for starts_at in sums:
                    sums[starts_at] += one.microseconds
        self._grown(grown)
        return sum(one.microseconds for one in grown)

    async def device_microseconds(self, principal: str, starts_at: int) -> int:
        """Time of devices that a principal has used since the beginning of an hour.

        Raises:
            StoreError: it cannot be told.
        """
        async with self._changing:
            used = self._device_use.get(principal, {}).get(starts_at)
            if used is None:
                rows = await self._ledger.usage(UsageQuery(since=starts_at, principal=principal))
                used = sum(row.device_microseconds for row in rows)
                while sum(map(len, self._device_use.values())) >= _MOST_SUMS:
                    del self._device_use[next(iter(self._device_use))]
                self._device_use.setdefault(principal, {})[starts_at] = used
            return used

    async def table(self, query: UsageQuery) -> Sequence[UsageRow]:
        """Sums of usage, the largest first; where they are by hour, in order of time.

        Raises:
            StoreError: they cannot be told.
        """
        rows = await self._ledger.usage(query)
        return sorted(rows, key=lambda row: (row.hour, -weight(row), row.principal, row.model))


def weight(row: UsageRow) -> int:
    """Sort key of a row: its tokens, and one for each request."""
    return row.prompt_tokens + row.completion_tokens + row.requests

"""The durable ledger: shares of limits, and what principals have used by hour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol


class ShareRow(NamedTuple):
    """What one gateway holds of one limit in one window; see `accounting/shares.py`."""

    principal: str
    meter: int
    period: int
    starts_at: int
    ends_at: int
    holder: str
    used: int
    granted: int
    lapses_at: float


class UsageRow(NamedTuple):
    """What one principal has used of one model within one hour; see UsageRow of the contract."""

    hour: int
    principal: str
    model: str
    requests: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    prefill_microseconds: int = 0
    decode_microseconds: int = 0
    load_microseconds: int = 0
    unload_microseconds: int = 0
    millijoules: int = 0

    @property
    def told_by_gateways(self) -> tuple[str | int, ...]:
        """All but time and energy of devices, which neurons tell: a row of `cortex_usage`."""
        return self[:-5]

    @property
    def device_microseconds(self) -> int:
        """All time of devices."""
        return sum(self[-5:-1])


class DeviceTotal(NamedTuple):
    """Microseconds of devices for one principal and model, since a neuron started or in between.

    Attributes:
        millijoules: of the devices' energy; 0 where they tell none.
    """

    principal: str
    model: str
    prefill: int
    decode: int
    load: int
    unload: int
    millijoules: int = 0

    @property
    def time(self) -> tuple[str | int, ...]:
        """All but energy: a row of `cortex_device_use`."""
        return self[:-1]

    @property
    def microseconds(self) -> int:
        """All kinds of work together."""
        return sum(self[2:-1])


class UsageQuery(NamedTuple):
    """Selects and groups the sums of a usage report.

    Attributes:
        by: columns that stay; the others are added over.
        since: first hour, seconds since the epoch.
        until: the hour behind the last one; 0 for all.
        principal: only of this one; None for all.
    """

    by: Sequence[str] = ()
    since: int = 0
    until: int = 0
    principal: str | None = None


class Ledger(Protocol):
    """Tables that are written in transactions. Every method may raise `StoreError`.

    Where several registries are, only the one that leads may write.

    Attributes:
        device_use_seconds: how often neurons' totals are added.
    """

    device_use_seconds: float = 1.0

    async def load_shares(self) -> Sequence[ShareRow]:
        """All shares."""
        ...

    async def save_shares(self, rows: Sequence[ShareRow], *, ended_before: int | None) -> None:
        """Writes shares, all or none.

        Args:
            rows: new ones, or in the place of those of the same limit, window and holder.
            ended_before: shares of windows that ended before are removed; None removes none.
        """
        ...

    async def add_usage(self, holder: str, number: int, rows: Sequence[UsageRow]) -> bool:
        """Adds what was used, once: False where a report of this number was added before.

        Args:
            holder: who reports.
            number: of the report; grows.
            rows: what is added.
        """
        ...

    async def add_device_use(
        self, source: str, hour: int, totals: Sequence[DeviceTotal], most: int
    ) -> Sequence[DeviceTotal]:
        """Adds by how much the totals of a source have grown since they were last added.

        Args:
            source: whose totals; another one begins at 0.
            hour: to which it is added.
            totals: since the source began.
            most: microseconds that are added; what is beyond is put off.

        Returns: what was added.
        """
        ...

    async def device_use_told_at(self, source: str) -> int | None:
        """When `add_device_use` has last added anything of a source, seconds since the epoch."""
        ...

    async def forget_usage(self, before: int) -> None:
        """Removes usage before an hour, and the reporters that were last heard of before it.

        Args:
            before: the first hour that stays, seconds since the epoch.
        """
        ...

    async def usage(self, query: UsageQuery) -> Sequence[UsageRow]:
        """Sums; fields that were added over are empty or 0."""
        ...


COUNTS: Final = UsageRow._fields[3:]
TOLD_BY_GATEWAYS: Final = COUNTS[:-5]

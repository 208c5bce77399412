"""The ledger in ConfigMaps: shares of limits in one, what was used in journals and months."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from typing_extensions import override

from services.registry.store.kubernetes.address import KubernetesAddress
from services.registry.store.kubernetes.api_server import ApiServer
from services.registry.store.kubernetes.claimed import ClaimedDocument, ClaimedObject
from services.registry.store.kubernetes.documents import ObjectKind, Place
from services.registry.store.kubernetes.journal import Journal, Kept, added, answered
from services.registry.store.kubernetes.usage_store import UsageStore
from services.registry.store.ledger import DeviceTotal, Ledger, ShareRow, UsageQuery, UsageRow

# Many gateways lease shares, each about once a second.
_PAUSE_SECONDS: Final = 0.2
JOURNALS: Final = 4
"""Never another number: in which one a gateway or a neuron is is found by it."""


class ShareTable(msgspec.Struct):
    """All shares of limits."""

    shares: list[Kept] = []

    @property
    def rows(self) -> list[ShareRow]:
        """As far as they are known here."""
        return [ShareRow(*one[: len(ShareRow._fields)]) for one in self.shares]

    def save(self, rows: Sequence[ShareRow], *, ended_before: int | None, now: float) -> None:
        """As `Ledger.save_shares`."""
        kept = {(row[:4], row.holder): row for row in (*self.rows, *rows)}
        self.shares = [
            row
            for row in kept.values()
            if ended_before is None or not _ended(row, ended_before, now)
        ]


class LedgerDocuments:
    """The ledger's objects, as the leader of one epoch writes them.

    Args:
        api: of the cluster.
        address: of the store.
        epoch: of the leader.

    Attributes:
        shares: of limits.
        journals: of what was used.
    """

    def __init__(self, api: ApiServer, address: KubernetesAddress, epoch: int) -> None:
        place = Place.of(address, ObjectKind.CONFIG_MAP, "shares")
        self.shares = ClaimedDocument(
            ClaimedObject(api, place, epoch), ShareTable, pause_seconds=_PAUSE_SECONDS
        )
        self.journals = [
            UsageStore(api, address, epoch=epoch, number=number) for number in range(JOURNALS)
        ]

    @property
    def documents(self) -> Sequence[ClaimedDocument[ShareTable] | ClaimedDocument[Journal]]:
        """All that are claimed."""
        return [self.shares, *(journal.journal for journal in self.journals)]

    def journal_of(self, name: str) -> UsageStore:
        """The journal of a gateway's process, or of one life of a neuron."""
        return self.journals[zlib.crc32(name.encode(errors="replace")) % JOURNALS]


class KubernetesLedger(Ledger):
    """The ledger.

    Args:
        leading: the objects of the epoch in which this registry leads; raises StoreError where it
            does not.
    """

    # each is a write of a whole object, to a server that others need too
    device_use_seconds = 3.0

    def __init__(self, leading: Callable[[], LedgerDocuments]) -> None:
        self._leading = leading

    @override
    async def load_shares(self) -> Sequence[ShareRow]:
        return self._leading().shares.document.rows

    @override
    async def save_shares(self, rows: Sequence[ShareRow], *, ended_before: int | None) -> None:
        now = time.time()
        await self._leading().shares.change(
            lambda table: table.save(rows, ended_before=ended_before, now=now)
        )

    @override
    async def add_usage(self, holder: str, number: int, rows: Sequence[UsageRow]) -> bool:
        return await self._leading().journal_of(holder).add_report(holder, number, rows)

    @override
    async def add_device_use(
        self, source: str, hour: int, totals: Sequence[DeviceTotal], most: int
    ) -> Sequence[DeviceTotal]:
        return await self._leading().journal_of(source).add_device_use(source, hour, totals, most)

    @override
    async def device_use_told_at(self, source: str) -> int | None:
        journal = self._leading().journal_of(source).journal.document
        return journal.sources[source].told_at if source in journal.sources else None

    @override
    async def forget_usage(self, before: int) -> None:
        for journal in self._leading().journals:
            await journal.forget(before)

    @override
    async def usage(self, query: UsageQuery) -> Sequence[UsageRow]:
        found: list[UsageRow] = []
        for journal in self._leading().journals:
            found += answered(query, await journal.rows())
        return added(found)


def _ended(row: ShareRow, ended_before: int, now: float) -> bool:
    if row.ends_at:
        return 0 < row.ends_at < ended_before
    return row.lapses_at < now

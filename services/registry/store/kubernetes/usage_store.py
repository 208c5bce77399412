"""One journal of what was used, with the months behind it: moves, sums, and what is forgotten."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import msgspec

from services.registry.store.health import StoreHealth
from services.registry.store.kubernetes.address import KubernetesAddress
from services.registry.store.kubernetes.api_server import ApiServer
from services.registry.store.kubernetes.claimed import ClaimedDocument, ClaimedObject
from services.registry.store.kubernetes.documents import ObjectKind, Place, packed, unpacked
from services.registry.store.kubernetes.journal import Journal, Kept, MonthPart, added
from services.registry.store.ledger import DeviceTotal, UsageRow
from services.registry.store.store import StoreError

# Between writes, so that those that come together go together.
_PAUSE_SECONDS: Final = 0.1


class UsageStore:
    """One of the journals, as the leader of one epoch writes it.

    Args:
        api: of the cluster.
        address: of the store.
        epoch: of the leader.
        number: of the journal.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        api: ApiServer,
        address: KubernetesAddress,
        *,
        epoch: int,
        number: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._address = address
        self._epoch = epoch
        self._number = number
        self._clock = clock
        place = Place.of(address, ObjectKind.CONFIG_MAP, f"usage-{number}")
        self.journal = ClaimedDocument(
            ClaimedObject(api, place, epoch), Journal, pause_seconds=_PAUSE_SECONDS
        )
        # nobody sums up, and nobody forgets, while rows are on their way
        self._moving = asyncio.Lock()
        self._kept: dict[str, bytes] = {}
        self._health = StoreHealth()

    async def add_report(self, holder: str, number: int, rows: Sequence[UsageRow]) -> bool:
        """As `Ledger.add_usage`."""
        now = int(self._clock())
        is_new = await self.journal.change(
            lambda journal: journal.add_report(holder, number, rows, now=now)
        )
        await self._move_what_is_due()
        return is_new

    async def add_device_use(
        self, source: str, hour: int, totals: Sequence[DeviceTotal], most: int
    ) -> Sequence[DeviceTotal]:
        """As `Ledger.add_device_use`."""
        now = int(self._clock())
        grown = await self.journal.change(
            lambda journal: journal.add_device_use(source, hour, totals, most=most, now=now)
        )
        await self._move_what_is_due()
        return grown

    async def forget(self, before: int) -> None:
        """As `Ledger.forget_usage`."""
        now = int(self._clock())
        async with self._settled():
            gone = await self.journal.change(lambda journal: journal.forget(before, now=now))
            for month, parts in gone:
                for part in range(parts):
                    place = self._place(month, part)
                    await self._api.remove(place.path)
                    self._kept.pop(place.name, None)
            if gone:
                months = [month for month, _ in gone]
                await self.journal.change(lambda journal: journal.drop(months))

    async def rows(self) -> list[UsageRow]:
        """All that is told of what was used.

        Raises:
            StoreError: it cannot be read.
        """
        async with self._settled():
            journal = self.journal.document
            found: list[Kept] = list(journal.rows)
            for month, parts in journal.months.items():
                for part in range(len(parts)):
                    content = await self._part(self._place(month, part))
                    found += (await asyncio.to_thread(_decoded, content)).rows
        return [row for row in added(found) if row.hour >= journal.since]

    async def _move_what_is_due(self) -> None:
        """Moves rows to their months. Where that fails they stay, and are told all the same."""
        now = int(self._clock())
        if self._moving.locked() or not self.journal.document.is_due(now):
            return
        try:
            async with self._settled():
                await self.journal.change(lambda journal: journal.begin_move(now))
                await self._finish_move()
        except StoreError as error:
            self._health.failed(str(error), journal=self._number)
        else:
            self._health.worked()

    @asynccontextmanager
    async def _settled(self) -> AsyncGenerator[None]:
        """Nothing is on its way, and nothing sets out, while the context is open."""
        async with self._moving:
            await self._finish_move()
            yield

    async def _finish_move(self) -> None:
        while moving := self.journal.document.moving:
            moves = self.journal.document.moves
            places = {month: self._place(month, move.part) for month, move in moving.items()}
            claimed = {
                month: ClaimedObject(self._api, place, self._epoch)
                for month, place in places.items()
            }
            parts = {month: _decoded(await claimed[month].read()) for month in moving}
            ahead = max(part.moves for part in parts.values())
            if ahead > moves:
                await self.journal.change(partial(Journal.renumber, moves=ahead + 1))
                continue
            sizes: dict[str, int] = {}
            for month, part in parts.items():
                is_new = part.take(moving[month].rows, moves)
                content = msgspec.json.encode(part)
                if is_new:
                    await claimed[month].write(content)
                kept = self._kept[places[month].name] = packed(content)
                sizes[month] = len(kept)
            await self.journal.change(partial(Journal.end_move, sizes=sizes))

    async def _part(self, place: Place) -> bytes:
        """A part as it was written last; the leader alone writes it, so it is read once."""
        if place.name not in self._kept:
            content = await ClaimedObject(self._api, place, self._epoch).read()
            self._kept[place.name] = packed(content)
            return content
        return unpacked(self._kept[place.name])

    def _place(self, month: str, part: int) -> Place:
        suffix = f"usage-{month}-{self._number}-{part}"
        return Place.of(self._address, ObjectKind.CONFIG_MAP, suffix)


def _decoded(content: bytes) -> MonthPart:
    try:
        return msgspec.json.decode(content, type=MonthPart) if content else MonthPart()
    except msgspec.DecodeError as error:
        raise StoreError(f"Kubernetes: what was used cannot be read: {error}") from error

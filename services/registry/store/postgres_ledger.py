"""The ledger in the PostgreSQL database of several registries; only the leader writes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final, LiteralString

import psycopg
from typing_extensions import override

from services.registry.store import ledger_sql as sql
from services.registry.store.device_growth import energy_growth, growth
from services.registry.store.ledger import DeviceTotal, Ledger, ShareRow, UsageQuery, UsageRow
from services.registry.store.postgres_connection import PostgresConnection
from services.registry.store.store import StoreError

# Locks the leader's row, so that what a deposed leader writes is refused.
_LEADS: Final[LiteralString] = "SELECT 1 FROM cortex_leader WHERE epoch = %s FOR SHARE"


class PostgresLedger(Ledger):
    """The ledger.

    Args:
        connection: to the database; not that of the leadership.
        leading: the epoch in which this registry leads; raises StoreError where it does not.
    """

    def __init__(self, connection: PostgresConnection, leading: Callable[[], int]) -> None:
        self._connection = connection
        self._leading = leading

    @override
    async def load_shares(self) -> Sequence[ShareRow]:
        async with self._connection.use() as connection:
            cursor = await connection.execute(sql.LOAD_SHARES)
            return [ShareRow(*row) for row in await cursor.fetchall()]

    @override
    async def save_shares(self, rows: Sequence[ShareRow], *, ended_before: int | None) -> None:
        async with self._writing() as cursor:
            await cursor.executemany(_own(sql.SAVE_SHARE), rows)
            if ended_before is not None:
                await cursor.execute(_own(sql.DROP_SHARES), (ended_before, time.time()))

    @override
    async def add_usage(self, holder: str, number: int, rows: Sequence[UsageRow]) -> bool:
        async with self._writing() as cursor:
            await cursor.execute(_own(sql.NOTE_REPORT), (holder, number, int(time.time())))
            if cursor.rowcount != 1:
                return False
            told = [row.told_by_gateways for row in rows]
            await cursor.executemany(_own(sql.ADD_USAGE), told)
        return True

    @override
    async def forget_usage(self, before: int) -> None:
        async with self._writing() as cursor:
            for statement in sql.FORGET:
                await cursor.execute(_own(statement), (before,))

    @override
    async def add_device_use(
        self, source: str, hour: int, totals: Sequence[DeviceTotal], most: int
    ) -> Sequence[DeviceTotal]:
        now = int(time.time())
        async with self._writing() as cursor:
            await cursor.execute(_own(sql.LOAD_TOTALS), (source,))
            known = await cursor.fetchall()
            grown, newer = growth(known, totals, most)
            saved = [(source, *one.time, now) for one in newer]
            await cursor.executemany(_own(sql.SAVE_TOTAL), saved)
            added = [(hour, *one.time) for one in grown]
            await cursor.executemany(_own(sql.ADD_DEVICE_USE), added)
            await cursor.execute(_own(sql.LOAD_ENERGY), (source,))
            more, sums = energy_growth(await cursor.fetchall(), totals, [*known, *newer])
            await cursor.executemany(_own(sql.SAVE_ENERGY), [(source, *one, now) for one in sums])
            await cursor.executemany(_own(sql.ADD_ENERGY), [(hour, *one) for one in more])
        return grown

    @override
    async def device_use_told_at(self, source: str) -> int | None:
        async with self._connection.use() as connection:
            cursor = await connection.execute(_own(sql.TOLD_AT), (source,))
            found = await cursor.fetchone()
        return None if found is None or found[0] is None else int(found[0])

    @override
    async def usage(self, query: UsageQuery) -> Sequence[UsageRow]:
        statement, values = sql.usage_statement(query)
        async with self._connection.use() as connection:
            cursor = await connection.execute(_own(statement), values)
            return sql.usage_rows(query, await cursor.fetchall())

    @contextlib.asynccontextmanager
    async def _writing(self) -> AsyncGenerator[psycopg.AsyncCursor[Any]]:
        """A transaction of the leader's."""
        epoch = self._leading()
        async with (
            self._connection.use() as connection,
            connection.transaction(),
            connection.cursor() as cursor,
        ):
            await cursor.execute(_LEADS, (epoch,))
            if await cursor.fetchone() is None:
                raise StoreError("Another registry leads.")
            yield cursor


def _own(statement: LiteralString) -> LiteralString:
    """A statement with the parameters as this database's library writes them."""
    return statement.replace("?", "%s")

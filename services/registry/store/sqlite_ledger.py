"""The ledger in the SQLite file of a single registry."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Generator, Sequence
from typing import Protocol, TypeVar

from typing_extensions import override

from services.registry.store import ledger_sql as sql
from services.registry.store.device_growth import energy_growth, growth
from services.registry.store.ledger import DeviceTotal, Ledger, ShareRow, UsageQuery, UsageRow

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class _Work(Protocol[T_co]):
    def __call__(self, database: sqlite3.Connection, /) -> T_co: ...


class Run(Protocol):
    """Does work on the database, in the store's own thread."""

    async def __call__(self, work: _Work[T], /) -> T:
        """What the work returns."""
        ...


class SqliteLedger(Ledger):
    """The ledger.

    Args:
        run: does work in the thread of the store.
    """

    def __init__(self, run: Run) -> None:
        self._run = run

    @override
    async def load_shares(self) -> Sequence[ShareRow]:
        def load(database: sqlite3.Connection) -> Sequence[ShareRow]:
            return [ShareRow(*row) for row in database.execute(sql.LOAD_SHARES)]

        return await self._run(load)

    @override
    async def save_shares(self, rows: Sequence[ShareRow], *, ended_before: int | None) -> None:
        def save(database: sqlite3.Connection) -> None:
            with _transaction(database):
                database.executemany(sql.SAVE_SHARE, rows)
                if ended_before is not None:
                    database.execute(sql.DROP_SHARES, (ended_before, time.time()))

        await self._run(save)

    @override
    async def add_usage(self, holder: str, number: int, rows: Sequence[UsageRow]) -> bool:
        def add(database: sqlite3.Connection) -> bool:
            with _transaction(database):
                noted = (holder, number, int(time.time()))
                if database.execute(sql.NOTE_REPORT, noted).rowcount != 1:
                    return False
                told = [row.told_by_gateways for row in rows]
                database.executemany(sql.ADD_USAGE, told)
            return True

        return await self._run(add)

    @override
    async def forget_usage(self, before: int) -> None:
        def forget(database: sqlite3.Connection) -> None:
            with _transaction(database):
                for statement in sql.FORGET:
                    database.execute(statement, (before,))

        await self._run(forget)

    @override
    async def add_device_use(
        self, source: str, hour: int, totals: Sequence[DeviceTotal], most: int
    ) -> Sequence[DeviceTotal]:
        def add(database: sqlite3.Connection) -> Sequence[DeviceTotal]:
            with _transaction(database):
                known = database.execute(sql.LOAD_TOTALS, (source,)).fetchall()
                grown, newer = growth(known, totals, most)
                now = int(time.time())
                database.executemany(sql.SAVE_TOTAL, [(source, *one.time, now) for one in newer])
                database.executemany(sql.ADD_DEVICE_USE, [(hour, *one.time) for one in grown])
                used = database.execute(sql.LOAD_ENERGY, (source,)).fetchall()
                more, sums = energy_growth(used, totals, [*known, *newer])
                database.executemany(sql.SAVE_ENERGY, [(source, *one, now) for one in sums])
                database.executemany(sql.ADD_ENERGY, [(hour, *one) for one in more])
            return grown

        return await self._run(add)

    @override
    async def device_use_told_at(self, source: str) -> int | None:
        def read(database: sqlite3.Connection) -> int | None:
            found: tuple[int | None] = database.execute(sql.TOLD_AT, (source,)).fetchone()
            return found[0]

        return await self._run(read)

    @override
    async def usage(self, query: UsageQuery) -> Sequence[UsageRow]:
        statement, values = sql.usage_statement(query)

        def read(database: sqlite3.Connection) -> Sequence[UsageRow]:
            return sql.usage_rows(query, database.execute(statement, values))

        return await self._run(read)


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Generator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")

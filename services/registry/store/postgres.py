"""The store of several registries: one PostgreSQL table that only the leader writes."""

from __future__ import annotations

from typing import Final, LiteralString

from typing_extensions import override

from services.registry.store.leader_lease import LeaderLease
from services.registry.store.ledger_sql import TABLES as LEDGER_TABLES
from services.registry.store.postgres_connection import PostgresConnection
from services.registry.store.postgres_election import TABLES, PostgresLeadership
from services.registry.store.postgres_ledger import PostgresLedger
from services.registry.store.store import FactKind, Facts, Store, StoreError, facts_of

# `cortex` in ASCII: any number that nobody else locks in this database.
_LOCK: Final = 0x636F72746578
_FACTS: Final[LiteralString] = """CREATE TABLE IF NOT EXISTS cortex_facts (
    kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, key))"""
# Both lock the leader's row: what a deposed leader writes is refused, or was written before its
# successor had begun to read.
_PUT: Final[LiteralString] = """
    WITH led AS (SELECT 1 FROM cortex_leader WHERE epoch = %s FOR SHARE)
    INSERT INTO cortex_facts (kind, key, value) SELECT %s, %s, %s FROM led
    ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value"""
_DELETE: Final[LiteralString] = """
    WITH led AS (SELECT 1 FROM cortex_leader WHERE epoch = %s FOR SHARE),
    gone AS (DELETE FROM cortex_facts
             WHERE kind = %s AND key = %s AND EXISTS (SELECT 1 FROM led))
    SELECT 1 FROM led"""


class PostgresStore(Store):
    """Keeps facts in a PostgreSQL database, and elects the leader there.

    Facts and leadership have a connection each: a write that fails, or whose caller leaves, must
    not cost the leadership.

    Args:
        url: as libpq reads it.
        lease_seconds: how long a leader that is not heard of goes on leading.
    """

    def __init__(self, url: str, *, lease_seconds: float) -> None:
        self._connection = PostgresConnection(url)
        self._leadership = PostgresLeadership(url, lease_seconds=lease_seconds)

    @property
    @override
    def ledger(self) -> PostgresLedger:
        return PostgresLedger(self._connection, self._leading)

    @override
    async def open(self) -> None:
        async with self._connection.use() as connection:
            # two registries that start together must not both create
            await connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
            try:
                for statement in (_FACTS, *TABLES, *LEDGER_TABLES):
                    await connection.execute(statement)
            finally:
                await connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))

    @override
    async def load(self) -> Facts:
        async with self._connection.use() as connection:
            cursor = await connection.execute("SELECT kind, key, value FROM cortex_facts")
            rows = await cursor.fetchall()
        return facts_of(rows)

    @override
    async def put(self, kind: FactKind, key: str, value: str) -> None:
        epoch = self._leading()
        async with self._connection.use() as connection:
            written = await connection.execute(_PUT, (epoch, kind.value, key, value))
        _require(is_led=written.rowcount == 1)

    @override
    async def delete(self, kind: FactKind, key: str) -> None:
        epoch = self._leading()
        async with self._connection.use() as connection:
            cursor = await connection.execute(_DELETE, (epoch, kind.value, key))
            row = await cursor.fetchone()
        _require(is_led=row is not None)

    @override
    async def try_lead(self, address: str) -> LeaderLease | None:
        return await self._leadership.take(address)

    @override
    async def renew(self) -> LeaderLease | None:
        return await self._leadership.renew()

    @override
    async def leader(self) -> str:
        return await self._leadership.leader()

    @override
    async def resign(self) -> None:
        await self._leadership.resign()

    @override
    async def close(self) -> None:
        await self._leadership.close()
        await self._connection.close()

    def _leading(self) -> int:
        epoch = self._leadership.epoch
        if epoch is None:
            raise StoreError("This registry does not lead.")
        return epoch


def _require(*, is_led: bool) -> None:
    if not is_led:
        raise StoreError("Another registry leads.")

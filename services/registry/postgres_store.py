"""The store of several registries: one PostgreSQL table, and one advisory lock that elects."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any, Final, LiteralString

import psycopg

from services.registry.store import Facts, Kind, StoreError

# `cortex` in ASCII: any number that nobody else locks in this database.
_LOCK: Final = 0x636F72746578
_CONNECT_SECONDS: Final = 5
_STATEMENT_MS: Final = 5_000
_TABLES: Final[tuple[LiteralString, ...]] = (
    """CREATE TABLE IF NOT EXISTS cortex_facts (
         kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, key))""",
    """CREATE TABLE IF NOT EXISTS cortex_leader (
         one BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (one), address TEXT NOT NULL)""",
)
_PUT: Final[LiteralString] = (
    "INSERT INTO cortex_facts (kind, key, value) VALUES (%s, %s, %s) "
    "ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value"
)
_LEAD: Final[LiteralString] = (
    "INSERT INTO cortex_leader (address) VALUES (%s) "
    "ON CONFLICT (one) DO UPDATE SET address = excluded.address"
)


class PostgresStore:
    """Facts in a database. The lock lives as long as the one connection that holds it.

    Args:
        url: as libpq reads it.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._turn = asyncio.Lock()
        self._leads = False

    async def open(self) -> None:
        """Connects and makes the tables."""
        async with self._connected() as connection:
            # two registries that start together must not both create
            await connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK + 1,))
            try:
                for statement in _TABLES:
                    await connection.execute(statement)
            finally:
                await connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK + 1,))

    async def load(self) -> Facts:
        """All facts; kinds of a newer version are left alone."""
        async with self._connected() as connection:
            cursor = await connection.execute("SELECT kind, key, value FROM cortex_facts")
            rows = await cursor.fetchall()
        facts: Facts = {kind: {} for kind in Kind}
        known = {kind.value: kind for kind in Kind}
        for kind, key, value in rows:
            if kind in known:
                facts[known[kind]][key] = value
        return facts

    async def put(self, kind: Kind, key: str, value: str) -> None:
        """Writes one fact; only the leader does."""
        async with self._connected() as connection:
            await connection.execute(_PUT, (kind.value, key, value))

    async def delete(self, kind: Kind, key: str) -> None:
        """Removes one fact."""
        async with self._connected() as connection:
            statement = "DELETE FROM cortex_facts WHERE kind = %s AND key = %s"
            await connection.execute(statement, (kind.value, key))

    async def try_lead(self, address: str) -> bool:
        """Takes the lock if it is free."""
        async with self._connected() as connection:
            cursor = await connection.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,))
            row = await cursor.fetchone()
            self._leads = bool(row and row[0])
            if self._leads:
                await connection.execute(_LEAD, (address,))
        return self._leads

    async def still_leads(self) -> bool:
        """True if the connection that took the lock is alive."""
        if not self._leads:
            return False
        async with self._connected() as connection:
            await connection.execute("SELECT 1")
        return self._leads

    async def leader(self) -> str:
        """The address that the newest leader has written."""
        async with self._connected() as connection:
            cursor = await connection.execute("SELECT address FROM cortex_leader")
            row = await cursor.fetchone()
        return str(row[0]) if row else ""

    async def resign(self) -> None:
        """Frees the lock."""
        if self._leads:
            self._leads = False
            async with self._connected() as connection:
                await connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))

    async def close(self) -> None:
        """Disconnects, which frees the lock too."""
        connection, self._connection, self._leads = self._connection, None, False
        if connection is not None:
            await connection.close()

    @contextlib.asynccontextmanager
    async def _connected(self) -> AsyncGenerator[psycopg.AsyncConnection[Any]]:
        """The connection, made anew after a loss; a loss ends the leadership."""
        async with self._turn:
            try:
                connection = self._connection
                if connection is None or connection.closed:
                    self._leads = False
                    connection = self._connection = await self._connect()
                yield connection
            except (psycopg.Error, OSError) as error:
                await self._lose()
                raise StoreError(f"PostgreSQL: {error}".strip()) from error
            except asyncio.CancelledError:
                # a statement cut in the middle leaves a connection that nobody can use
                await self._lose()
                raise

    async def _lose(self) -> None:
        connection, self._connection, self._leads = self._connection, None, False
        if connection is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                await connection.close()

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(
            self._url,
            autocommit=True,
            connect_timeout=_CONNECT_SECONDS,
            keepalives_idle=5,
            keepalives_interval=2,
            keepalives_count=2,
            tcp_user_timeout=_STATEMENT_MS,
            options=f"-c statement_timeout={_STATEMENT_MS}",
            application_name="cortex-registry",
            # a database of SQL_ASCII would otherwise answer in bytes
            client_encoding="utf8",
        )

"""Which of several registries leads: one row in PostgreSQL, and one session lock for each epoch.

The row says who leads, in which epoch and until when. The leader renews it, and its session holds
a lock that is named after the epoch. So a stand-by takes over at once when the lock is free, for
then the leader's process or its connection is gone; and when the time is over, for then the leader
is frozen or cut off, whatever it still holds. Taking over counts the epoch up in one statement, and
whoever finds another epoch than its own in the row leads no more.
"""

from __future__ import annotations

import time
from typing import Any, Final, LiteralString

import psycopg

from services.registry.store.leader_lease import LeaderLease
from services.registry.store.postgres_connection import PostgresConnection

# `cort` in ASCII, above the epoch: any numbers that nobody else locks in this database.
_LOCKS: Final = 0x636F7274 << 32
TABLES: Final[tuple[LiteralString, ...]] = (
    """CREATE TABLE IF NOT EXISTS cortex_leader (
         one BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (one), address TEXT NOT NULL,
         epoch BIGINT NOT NULL, expires_at TIMESTAMPTZ NOT NULL)""",
    """INSERT INTO cortex_leader (address, epoch, expires_at) VALUES ('', 0, '-infinity')
       ON CONFLICT (one) DO NOTHING""",
)
# Epochs are no less than the clock: a database that was made anew, or restored from an old copy,
# gives none that a neuron has seen before.
_LOOK: Final[LiteralString] = """
    SELECT epoch, greatest(epoch + 1, extract(epoch FROM now())::bigint), expires_at < now()
    FROM cortex_leader"""
_TAKE: Final[LiteralString] = """
    UPDATE cortex_leader
    SET epoch = %s, address = %s, expires_at = now() + make_interval(secs => %s)
    WHERE epoch = %s"""
_RENEW: Final[LiteralString] = """
    UPDATE cortex_leader SET expires_at = now() + make_interval(secs => %s) WHERE epoch = %s"""
# For the length of the statement: it only tells whether the session that held it is gone.
_IS_FREE: Final[LiteralString] = "SELECT pg_try_advisory_xact_lock(%s)"
_LOCK: Final[LiteralString] = "SELECT pg_try_advisory_lock(%s)"
_UNLOCK: Final[LiteralString] = "SELECT pg_advisory_unlock(%s)"
_RESIGN: Final[LiteralString] = """
    UPDATE cortex_leader SET expires_at = '-infinity' WHERE epoch = %s"""


class PostgresLeadership:
    """One registry's part in the election.

    Args:
        url: as libpq reads it.
        lease_seconds: how long a leader that is not heard of goes on leading.
    """

    def __init__(self, url: str, *, lease_seconds: float) -> None:
        self._connection = PostgresConnection(url, self._lost)
        self._lease_seconds = lease_seconds
        self._epoch: int | None = None

    @property
    def epoch(self) -> int | None:
        """The epoch in which this registry leads, as far as it knows; None where it does not."""
        return self._epoch

    async def take(self, address: str) -> LeaderLease | None:
        """Takes the leadership if nobody has it.

        Raises:
            StoreError: the database cannot be asked.
        """
        began = time.monotonic()
        async with self._connection.use() as connection:
            row = await (await connection.execute(_LOOK)).fetchone()
            if row is None:
                return None
            last, epoch, is_over = int(row[0]), int(row[1]), bool(row[2])
            if not is_over and not await _ask(connection, _IS_FREE, last):
                return None
            if not await _ask(connection, _LOCK, epoch):
                return None  # another one is taking it
            taken = await connection.execute(_TAKE, (epoch, address, self._lease_seconds, last))
            if taken.rowcount != 1:
                await _ask(connection, _UNLOCK, epoch)
                return None
            self._epoch = epoch
        return LeaderLease(epoch, began + self._lease_seconds)

    async def renew(self) -> LeaderLease | None:
        """Prolongs the leadership; None if it is lost.

        Raises:
            StoreError: the database cannot be asked.
        """
        epoch, began = self._epoch, time.monotonic()
        if epoch is None:
            return None
        async with self._connection.use() as connection:
            renewed = await connection.execute(_RENEW, (self._lease_seconds, epoch))
            if renewed.rowcount == 1 and self._epoch == epoch:
                return LeaderLease(epoch, began + self._lease_seconds)
            await _ask(connection, _UNLOCK, epoch)
        self._epoch = None
        return None

    async def leader(self) -> str:
        """The address that the newest leader has written; empty where there was none yet."""
        async with self._connection.use() as connection:
            cursor = await connection.execute("SELECT address FROM cortex_leader")
            row = await cursor.fetchone()
        return str(row[0]) if row else ""

    async def resign(self) -> None:
        """Gives the leadership up, so that the next one takes it at once."""
        epoch, self._epoch = self._epoch, None
        if epoch is not None:
            async with self._connection.use() as connection:
                await connection.execute(_RESIGN, (epoch,))
                await _ask(connection, _UNLOCK, epoch)

    async def close(self) -> None:
        """Disconnects. That releases the lock too, so that others see this registry as gone."""
        await self._connection.close()

    def _lost(self) -> None:
        """The connection is lost, and with it the lock: this registry leads no more."""
        self._epoch = None


async def _ask(
    connection: psycopg.AsyncConnection[Any], question: LiteralString, epoch: int
) -> bool:
    """Asks about the lock of an epoch."""
    cursor = await connection.execute(question, (_LOCKS | (epoch & 0xFFFFFFFF),))
    row = await cursor.fetchone()
    return bool(row and row[0])

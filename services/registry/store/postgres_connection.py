"""One connection to PostgreSQL, made when it is needed and made anew after a loss."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any, Final

import psycopg

from services.registry.store.store import StoreError

_CONNECT_SECONDS: Final = 5
_STATEMENT_MS: Final = 5_000


class PostgresConnection:
    """A connection that one caller uses at a time; others wait for their turn.

    Args:
        url: as libpq reads it.
        on_loss: called when a connection, and with it whatever its session held, is gone.
    """

    def __init__(self, url: str, on_loss: Callable[[], None] = lambda: None) -> None:
        self._url = url
        self._on_loss = on_loss
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._turn = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncGenerator[psycopg.AsyncConnection[Any]]:
        """The connection, made anew where it was lost.

        Raises:
            StoreError: the server cannot be reached, or refused the statement.
        """
        async with self._turn:
            try:
                connection = self._connection
                if connection is None or connection.closed:
                    await self._lose()
                    connection = self._connection = await self._connect()
                yield connection
            except (psycopg.Error, OSError) as error:
                await self._lose()
                raise StoreError(f"PostgreSQL: {error}".strip()) from error
            except asyncio.CancelledError:
                # a statement cut in the middle leaves a connection that nobody can use
                await self._lose()
                raise

    async def close(self) -> None:
        """Disconnects."""
        await self._lose()

    async def _lose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._on_loss()
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

"""A real PostgreSQL for the tests that ask for one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator

import psycopg
import pytest

from tests.doubles.postgres_server import postgres


@pytest.fixture(scope="module")
def server() -> Generator[str]:
    with postgres() as url:
        yield url


@pytest.fixture
async def url(server: str) -> AsyncGenerator[str]:
    """The server with an empty database."""
    yield server
    async with await psycopg.AsyncConnection.connect(server, autocommit=True) as connection:
        await connection.execute("DROP TABLE IF EXISTS cortex_facts, cortex_leader")

"""A real PostgreSQL, and a scripted Kubernetes, for the tests that ask for one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator

import psycopg
import pytest

from services.registry.store.kubernetes.address import KubernetesAddress
from services.registry.store.kubernetes.store import KubernetesStore
from tests.doubles.kubernetes_api import KubernetesApi, kubernetes_api
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


@pytest.fixture
def api() -> Generator[KubernetesApi]:
    """An API server without objects."""
    with kubernetes_api() as made:
        yield made


@pytest.fixture
def kubernetes(api: KubernetesApi) -> str:
    """The URL of a store there."""
    return f"kubernetes://llm/fleet?server={api.url}"


@pytest.fixture
async def new_store(kubernetes: str):
    """Makes stores in Kubernetes, which are closed at the end."""
    made: list[KubernetesStore] = []

    def make(lease_seconds: float = 60.0) -> KubernetesStore:
        address = KubernetesAddress.parse(kubernetes)
        made.append(KubernetesStore(address, lease_seconds=lease_seconds))
        return made[-1]

    yield make
    for store in made:
        await store.close()

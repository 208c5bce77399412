"""The store and the election on a real PostgreSQL: one leads, whatever happens."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from services.registry.store.postgres import PostgresStore
from services.registry.store.store import FactKind, StoreError
from tests.doubles.registry_neuron import LOOPBACK, eventually
from tests.doubles.registry_stand_ins import document

ONE = '[[models]]\nid = "a"\nsource = "path:/a"\nmemory = "10MiB"\n'


async def test_one_leads_and_the_lock_dies_with_its_connection(url):
    one, two = (PostgresStore(url, lease_seconds=5.0) for _ in range(2))
    await one.open()
    await two.open()

    assert await one.try_lead("one:1")
    assert not await two.try_lead("two:1")
    assert await two.leader() == "one:1"
    await one.close()

    async def takes_over() -> bool:
        return await two.try_lead("two:1") is not None

    await eventually(takes_over)
    assert await two.renew()
    assert await two.leader() == "two:1"
    await two.close()


async def test_a_server_that_goes_away_is_a_store_error_and_ends_the_leadership(url):
    store = PostgresStore(url, lease_seconds=5.0)
    await store.open()
    assert await store.try_lead("one:1")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as killer:
        await killer.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'cortex-registry'"
        )

    with pytest.raises(StoreError):
        await store.renew()
    assert await store.renew() is None
    with pytest.raises(StoreError):
        await store.put(FactKind.PIN, "a", "")
    with pytest.raises(StoreError):
        await store.load()
    assert (await store.load())[FactKind.PIN] == {}
    await store.close()


async def test_a_new_database_gives_no_lesser_epochs_than_the_old_one_did(url):
    old = PostgresStore(url, lease_seconds=5.0)
    await old.open()
    first = await old.try_lead("one:1")
    await old.close()
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as operator:
        await operator.execute("DROP TABLE cortex_leader")

    new = PostgresStore(url, lease_seconds=5.0)
    await new.open()
    second = await new.try_lead("one:1")

    assert first is not None
    assert second is not None
    assert second.epoch >= first.epoch  # at most one leader a second
    await new.close()


@pytest.mark.parametrize("name", ["a\0b", "x" * 10_000_000])
async def test_a_fact_that_cannot_be_written_does_not_cost_the_leadership(url, name):
    store = PostgresStore(url, lease_seconds=5.0)
    await store.open()
    assert await store.try_lead("one:1")

    with pytest.raises(StoreError):
        await store.put(FactKind.NEURON, name, "")

    assert await store.renew()
    await store.close()


async def test_an_operator_who_leaves_in_the_middle_does_not_cost_the_leadership(url):
    store = PostgresStore(url, lease_seconds=5.0)
    await store.open()
    assert await store.try_lead("one:1")
    async with await psycopg.AsyncConnection.connect(url) as blocker:
        await blocker.execute("LOCK TABLE cortex_facts")
        writing = asyncio.create_task(store.put(FactKind.PIN, "a", ""))
        await eventually(lambda: _waits_for_a_lock(url))

        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)

        assert await store.renew()
    await store.close()


async def _waits_for_a_lock(url: str) -> bool:
    async with await psycopg.AsyncConnection.connect(url) as looker:
        cursor = await looker.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        row = await cursor.fetchone()
    return bool(row and row[0])


async def test_a_url_that_cannot_be_used_is_said_in_one_sentence(tmp_path):
    from services.backplane.settings import SettingsError
    from services.registry.wire import running

    for url, word in (("mysql://x", "none of"), ("postgresql://127.0.0.1:1/x", "PostgreSQL")):
        with pytest.raises(SettingsError, match=word):
            async with running(document(tmp_path, ONE, store=url), listen=LOOPBACK):
                pass

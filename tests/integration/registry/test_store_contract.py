"""What every store promises, and what every store that several registries share does besides."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import psycopg
import pytest

from services.registry.store.kubernetes.address import KubernetesAddress
from services.registry.store.kubernetes.store import KubernetesStore
from services.registry.store.ledger import DeviceTotal, ShareRow, UsageQuery, UsageRow
from services.registry.store.postgres import PostgresStore
from services.registry.store.sqlite import SqliteStore
from services.registry.store.store import FactKind, Store, StoreError
from tests.doubles.registry_neuron import eventually

HOUR = int(time.time()) // 3600 * 3600
LONG_AGO = HOUR - 90 * 86_400
EACH = UsageQuery(("principal", "model", "hour"))
TABLES = (
    "cortex_facts, cortex_leader, cortex_shares, cortex_usage, cortex_usage_holders,"
    " cortex_device_use, cortex_device_sources, cortex_device_energy, cortex_energy_sources"
)
Make = Callable[..., Store]


def made(request, kind: str, tmp_path):
    """Makes stores over the same place, as each registry has one."""
    if kind == "sqlite":
        yield lambda **_: SqliteStore(str(tmp_path / "registry.sqlite"))
    elif kind == "kubernetes":
        address = KubernetesAddress.parse(request.getfixturevalue("kubernetes"))
        yield lambda lease_seconds=60.0: KubernetesStore(address, lease_seconds=lease_seconds)
    else:
        server = request.getfixturevalue("server")
        yield lambda lease_seconds=60.0: PostgresStore(server, lease_seconds=lease_seconds)
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP TABLE IF EXISTS {TABLES}")


@pytest.fixture(params=["sqlite", "postgres", "kubernetes"])
def new_store(request, tmp_path):
    yield from made(request, request.param, tmp_path)


@pytest.fixture(params=["postgres", "kubernetes"])
def new_shared(request, tmp_path):
    yield from made(request, request.param, tmp_path)


async def leading(new_store: Make) -> Store:
    store = new_store()
    await store.open()
    assert await store.try_lead("one:1")
    return store


async def ended(*stores: Store) -> None:
    """As a registry ends."""
    for store in stores:
        await store.resign()
        await store.close()


async def test_facts_are_kept_and_removed(new_store: Make):
    store = await leading(new_store)
    for kind in FactKind:
        await store.put(kind, "hf:owner/name/with spaces\n", "{}")
    await store.put(FactKind.PIN, "a", "one")
    await store.put(FactKind.PIN, "a", "two")
    await store.put(FactKind.CORDON, "beast", "")
    await store.delete(FactKind.CORDON, "beast")
    await store.delete(FactKind.CORDON, "never")
    await ended(store)
    again = await leading(new_store)

    kept = await again.load()

    assert kept[FactKind.PIN] == {"a": "two", "hf:owner/name/with spaces\n": "{}"}
    assert all(kept[kind]["hf:owner/name/with spaces\n"] == "{}" for kind in FactKind)
    assert "beast" not in kept[FactKind.CORDON]
    await ended(again)


async def test_many_facts_at_once_are_all_kept(new_store: Make):
    store = await leading(new_store)

    await asyncio.gather(*(store.put(FactKind.KEY_USE, f"k{n}", str(n)) for n in range(200)))
    await asyncio.gather(*(store.delete(FactKind.KEY_USE, f"k{n}") for n in range(0, 200, 2)))
    await ended(store)

    again = await leading(new_store)
    expected = {f"k{n}": str(n) for n in range(1, 200, 2)}
    assert (await again.load())[FactKind.KEY_USE] == expected
    await ended(again)


async def test_reports_and_totals_count_once(new_store: Make):
    store = await leading(new_store)
    row = UsageRow(HOUR, "ada", "tiny", requests=1, prompt_tokens=7)
    older = row._replace(hour=LONG_AGO)

    assert await store.ledger.add_usage("gateway", 1, [row, row])
    assert not await store.ledger.add_usage("gateway", 1, [row])
    assert await store.ledger.add_usage("another", 1, [older])
    totals = [
        DeviceTotal("ada", "tiny", 30, 70, 0, 0, millijoules=12),
        DeviceTotal("bob", "tiny", 5, 0, 0, 0),
    ]
    grown = await store.ledger.add_device_use("n/1", HOUR, totals, 2**40)
    assert [one[:6] for one in grown] == [one[:6] for one in totals]
    assert not await store.ledger.add_device_use("n/1", HOUR, totals, 2**40)
    grown = await store.ledger.add_device_use(
        "n/1", HOUR, [DeviceTotal("ada", "tiny", 30, 95, 0, 0, millijoules=15)], 10
    )
    assert list(grown) == [DeviceTotal("ada", "tiny", 0, 10, 0, 0)]
    await ended(store)

    again = await leading(new_store)
    assert not await again.ledger.add_usage("gateway", 1, [row])
    assert await again.ledger.device_use_told_at("n/1") == pytest.approx(time.time(), abs=100)
    assert await again.ledger.device_use_told_at("n/2") is None
    ada = row._replace(requests=2, prompt_tokens=14)
    ada = ada._replace(prefill_microseconds=30, decode_microseconds=80, millijoules=15)
    bob = UsageRow(HOUR, "bob", "tiny", prefill_microseconds=5)
    assert sorted(await again.ledger.usage(EACH)) == [older, ada, bob]
    (all_of_it,) = await again.ledger.usage(UsageQuery(since=HOUR))
    assert (all_of_it[:3], all_of_it.prompt_tokens) == ((0, "", ""), 14)
    (of_bob,) = await again.ledger.usage(UsageQuery(("model",), principal="bob"))
    assert of_bob == bob._replace(hour=0, principal="")
    assert list(await again.ledger.usage(UsageQuery(("hour",), until=HOUR))) == [
        older._replace(principal="", model="")
    ]
    await again.ledger.forget_usage(HOUR)
    assert sorted(await again.ledger.usage(EACH)) == [ada, bob]
    await ended(again)


async def test_nothing_used_is_no_row(new_store: Make):
    store = await leading(new_store)

    assert not await store.ledger.usage(UsageQuery())
    assert not await store.ledger.usage(EACH)
    await ended(store)


async def test_shares_are_replaced_and_those_that_ended_go(new_store: Make):
    store = await leading(new_store)
    share = ShareRow("ada", 1, 2, 100, 4_000_000_000, "one", 5, 10, time.time() + 60)
    past = share._replace(starts_at=1, ends_at=50)
    endless = share._replace(period=0, starts_at=0, ends_at=0)
    lapsed = endless._replace(holder="two", lapses_at=1.0)

    await store.ledger.save_shares([share, past, endless, lapsed], ended_before=None)
    assert len(await store.ledger.load_shares()) == 4
    await store.ledger.save_shares([share._replace(used=7)], ended_before=60)
    await ended(store)

    again = await leading(new_store)
    assert sorted(await again.ledger.load_shares()) == [endless, share._replace(used=7)]
    await ended(again)


async def test_one_leads_and_the_others_know_who(new_shared: Make):
    one, two = await leading(new_shared), new_shared()
    await two.open()

    assert await two.try_lead("two:1") is None
    assert await two.leader() == "one:1"
    with pytest.raises(StoreError):
        await two.put(FactKind.PIN, "a", "two")
    with pytest.raises(StoreError):
        await two.ledger.add_usage("gateway", 1, [])
    assert await one.renew()
    await ended(one, two)


async def test_a_leader_that_is_not_heard_of_is_deposed_whatever_it_holds(new_shared: Make):
    """It is frozen: its connections, and a lock if there is one, are alive all the time."""
    frozen, other = new_shared(lease_seconds=2.0), new_shared(lease_seconds=5.0)
    await frozen.open()
    await other.open()
    first = await frozen.try_lead("one:1")
    assert first is not None
    await frozen.put(FactKind.PIN, "a", "one")
    assert await other.try_lead("two:1") is None

    await eventually(lambda: other.try_lead("two:1"))

    second = await other.renew()
    assert second is not None
    assert second.epoch > first.epoch
    for write in (
        frozen.put(FactKind.PIN, "a", "late"),
        frozen.delete(FactKind.PIN, "a"),
        frozen.ledger.add_usage("gateway", 1, [UsageRow(HOUR, "ada", "tiny", 1)]),
        frozen.ledger.save_shares([ShareRow("ada", 1, 2, 3, 4, "one", 5, 6, 7.0)], ended_before=1),
    ):
        with pytest.raises(StoreError, match="Another registry leads"):
            await write
    assert await frozen.renew() is None
    assert await frozen.leader() == "two:1"
    assert await frozen.try_lead("one:1") is None
    assert (await other.load())[FactKind.PIN] == {"a": "one"}
    assert not await other.ledger.usage(EACH)
    await ended(frozen, other)


async def test_who_resigns_is_followed_at_once(new_shared: Make):
    one, two = new_shared(), new_shared()
    await one.open()
    await two.open()
    first = await one.try_lead("one:1")
    await one.resign()

    second = await two.try_lead("two:1")

    assert first is not None
    assert second is not None
    assert second.epoch > first.epoch
    await ended(one, two)


async def test_of_many_that_try_at_once_one_leads(new_shared: Make):
    stores = [new_shared() for _ in range(6)]
    await asyncio.gather(*(store.open() for store in stores))

    for _ in range(3):
        won = await asyncio.gather(*(store.try_lead("x") for store in stores))

        assert sum(lease is not None for lease in won) <= 1
        for store, lease in zip(stores, won, strict=True):
            if lease is not None:
                await store.resign()
    await ended(*stores)

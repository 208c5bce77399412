"""Sums of usage and of the devices' time, over a real store in memory."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from services.registry.accounting.usage import UsageLedger
from services.registry.store.ledger import DeviceTotal, UsageQuery, UsageRow
from services.registry.store.sqlite import SqliteStore

NOW = 1_767_225_600 + 7 * 3600 + 5
HOUR = NOW // 3600 * 3600
EACH = UsageQuery(("principal", "hour"))


@pytest.fixture
async def store() -> AsyncIterator[SqliteStore]:
    made = SqliteStore(":memory:")
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def usage(store: SqliteStore) -> UsageLedger:
    return UsageLedger(store.ledger, kept_days=400, clock=lambda: NOW)


async def test_a_report_counts_once(usage: UsageLedger):
    row = UsageRow(HOUR, "ada", "tiny", requests=1, prompt_tokens=7, completion_tokens=2)

    assert await usage.report("gateway", 1, [row])
    assert not await usage.report("gateway", 1, [row])
    assert await usage.report("gateway", 2, [row])
    assert await usage.report("another", 1, [row])

    (found,) = await usage.table(UsageQuery())
    assert (found.requests, found.prompt_tokens, found.completion_tokens) == (3, 21, 6)


async def test_what_is_added_over_is_empty_and_the_heaviest_is_first(usage: UsageLedger):
    rows = [
        UsageRow(HOUR, "ada", "tiny", prompt_tokens=1),
        UsageRow(HOUR - 3600, "bob", "tiny", prompt_tokens=5),
        UsageRow(HOUR, "bob", "large", prompt_tokens=2),
    ]
    await usage.report("gateway", 1, rows)

    by_key = await usage.table(UsageQuery(("principal",)))
    by_hour = await usage.table(UsageQuery(("hour",)))
    of_ada = await usage.table(UsageQuery(("model",), principal="ada"))
    since = await usage.table(UsageQuery(("principal",), since=HOUR))
    until = await usage.table(UsageQuery(("principal",), until=HOUR))

    assert [(row.principal, row.model, row.prompt_tokens) for row in by_key] == [
        ("bob", "", 7),
        ("ada", "", 1),
    ]
    assert [(row.hour, row.prompt_tokens) for row in by_hour] == [(HOUR - 3600, 5), (HOUR, 3)]
    assert [(row.model, row.prompt_tokens) for row in of_ada] == [("tiny", 1)]
    assert [(row.principal, row.prompt_tokens) for row in since] == [("bob", 2), ("ada", 1)]
    assert [(row.principal, row.prompt_tokens) for row in until] == [("bob", 5)]


async def test_what_was_used_long_ago_is_forgotten(store: SqliteStore):
    now = float(NOW)
    usage = UsageLedger(store.ledger, kept_days=40, clock=lambda: now)
    await usage.report("gateway", 1, [UsageRow(HOUR, "ada", "tiny", requests=1)])

    for day in (39, 41):
        now = NOW + day * 86_400
        await usage.report("gateway", day, [UsageRow(int(now) // 3600 * 3600, "bob", "tiny", 1)])
        if day == 39:
            assert {"ada", "bob"} == {row.principal for row in await usage.table(EACH)}

    assert {"bob"} == {row.principal for row in await usage.table(EACH)}


async def test_gateways_that_are_long_gone_are_forgotten(store: SqliteStore):
    """Their reports are numbered by when they were heard of, which is now."""
    usage = UsageLedger(store.ledger, kept_days=40)
    row = UsageRow(HOUR, "ada", "tiny", requests=1)
    await usage.report("gone", 7, [row])

    await store.ledger.forget_usage(int(time.time()) + 3600)

    assert await usage.report("gone", 7, [row])


async def test_totals_of_devices_are_added_by_what_they_have_grown(store: SqliteStore):
    told: list[DeviceTotal] = []
    usage = UsageLedger(store.ledger, kept_days=400, grown=told.extend, clock=lambda: NOW)
    await usage.note_devices("life-1", [DeviceTotal("ada", "tiny", 100, 200, 50, 0)])
    again = UsageLedger(store.ledger, kept_days=400, grown=told.extend, clock=lambda: NOW)
    await again.note_devices("life-1", [DeviceTotal("ada", "tiny", 100, 250, 50, 3)])
    await again.note_devices("life-1", [DeviceTotal("ada", "tiny", 90, 250, 50, 3)])  # older news
    await again.note_devices("life-2", [DeviceTotal("ada", "tiny", 10, 0, 0, 0)])

    (row,) = await again.table(UsageQuery(("principal", "model", "hour")))

    assert row[:3] == (HOUR, "ada", "tiny")
    assert row[-5:] == (110, 250, 50, 3, 0)
    assert sum(one.microseconds for one in told) == row.device_microseconds


async def test_what_was_used_of_devices_in_a_window_grows_with_the_news(usage: UsageLedger):
    await usage.note_devices("life-1", [DeviceTotal("ada", "tiny", 100, 200, 0, 0)])
    assert await usage.device_microseconds("ada", HOUR) == 300
    assert await usage.device_microseconds("ada", HOUR + 3600) == 0

    await usage.note_devices("life-1", [DeviceTotal("ada", "tiny", 100, 300, 0, 0)])

    assert await usage.device_microseconds("ada", HOUR) == 400
    assert await usage.device_microseconds("bob", HOUR) == 0


async def test_what_devices_did_long_ago_is_forgotten(store: SqliteStore):
    usage = UsageLedger(store.ledger, kept_days=1, clock=lambda: NOW)
    await usage.note_devices("life-1", [DeviceTotal("ada", "tiny", 1, 0, 0, 0)])

    later = UsageLedger(store.ledger, kept_days=1, clock=lambda: NOW + 3 * 86_400)
    await later.report("gateway", 1, [])

    assert not await later.table(EACH)


async def test_a_principal_that_rests_for_longer_than_is_kept_is_not_counted_again(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
):
    now = float(NOW)
    monkeypatch.setattr(time, "time", lambda: now)
    usage = UsageLedger(store.ledger, kept_days=40, clock=lambda: now)
    rests = DeviceTotal("ada", "tiny", 0, 100, 0, 0)
    await usage.note_devices("life", [rests, DeviceTotal("bob", "tiny", 0, 1, 0, 0)])
    for day in (20, 45):
        now = NOW + day * 86_400.0
        await usage.note_devices("life", [DeviceTotal("bob", "tiny", 0, 1 + day, 0, 0)])
        await usage.report("gateway", day, [UsageRow(int(now) // 3600 * 3600, "bob", "tiny", 1)])

    await usage.note_devices("life", [rests])  # as after a new connection

    assert {"bob"} == {row.principal for row in await usage.table(EACH)}


async def test_energy_is_added_by_what_it_has_grown_within_the_time_of_devices(usage: UsageLedger):
    second = 1_000_000

    def told(time_used: int, millijoules: int, principal: str = "ada") -> DeviceTotal:
        return DeviceTotal(principal, "tiny", 0, time_used, 0, 0, millijoules)

    await usage.note_devices("life-1", [told(second, 0)])
    await usage.note_devices("life-1", [told(second, 300_000), told(second, 5, "bob")])
    await usage.note_devices("life-1", [told(second, 300_000)])
    await usage.note_devices("life-1", [told(second, 200_000)])  # older news
    await usage.note_devices("life-2", [told(second, 50_000)])
    await usage.note_devices("liar", [told(10, 2**60, "liar")])

    rows = {row.principal: row for row in await usage.table(UsageQuery(("principal", "model")))}

    assert {"ada": 350_000, "bob": 5, "liar": 1280} == {
        name: row.millijoules for name, row in rows.items()
    }
    assert 2 * second == rows["ada"].device_microseconds


async def test_energy_of_long_ago_is_forgotten(store: SqliteStore):
    usage = UsageLedger(store.ledger, kept_days=1, clock=lambda: NOW)
    await usage.note_devices("life-1", [DeviceTotal("ada", "tiny", 10, 0, 0, 0, 7)])

    later = UsageLedger(store.ledger, kept_days=1, clock=lambda: NOW + 3 * 86_400)
    await later.report("gateway", 1, [])

    assert not await later.table(EACH)

"""Totals on their way from neurons to the store."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import pytest

from cortex.v1 import neuron_service_pb2 as neuron
from services.registry.accounting.device_use import DeviceUseIntake
from services.registry.accounting.usage import UsageLedger
from services.registry.store.device_growth import MOST_GROWTH, MOST_SOURCE_ROWS
from services.registry.store.ledger import (
    DeviceTotal,
    Ledger,
    UsageQuery,
)
from services.registry.store.sqlite import SqliteStore
from services.registry.store.store import StoreError

EACH: Final = UsageQuery(("principal",))


class Brittle(Ledger):
    """Keeps what it is given, unless it is away."""

    def __init__(self) -> None:
        self.is_away = False
        self.added: list[tuple[str, DeviceTotal]] = []

    async def add_device_use(
        self, source: str, hour: int, totals: Sequence[DeviceTotal], most: int
    ) -> Sequence[DeviceTotal]:
        if self.is_away:
            raise StoreError("away")
        self.added += [(source, total) for total in totals]
        return totals


def status(life: str, *rows: tuple[str, int]) -> neuron.NeuronStatus:
    made = neuron.NeuronStatus(identity=neuron.NeuronIdentity(name="n", incarnation_id=life))
    for principal, microseconds in rows:
        made.report.device_use.add(principal=principal, decode_microseconds=microseconds)
    return made


def intake(ledger: Ledger) -> DeviceUseIntake:
    return DeviceUseIntake(UsageLedger(ledger, kept_days=1))


async def test_the_newest_total_of_each_is_written_once() -> None:
    ledger = Brittle()
    made = intake(ledger)
    first = status("life", ("ada", 10), ("bob", 5))
    made.take(first)
    made.take(status("life", ("ada", 30)))
    made.take(status("life", ("ada", 20)))  # an older stream's, heard later

    await made.write()
    await made.write()

    assert sorted((source, one.principal, one.decode) for source, one in ledger.added) == [
        ("n/life", "ada", 30),
        ("n/life", "bob", 5),
    ]
    assert not first.report.device_use


async def test_what_could_not_be_written_is_written_when_the_store_is_back() -> None:
    ledger = Brittle()
    made = intake(ledger)
    ledger.is_away = True
    made.take(status("one", ("ada", 10), ("bob", 1)))
    made.take(status("two", ("ada", 7)))
    await made.write()
    made.take(status("one", ("ada", 12)))

    ledger.is_away = False
    await made.write()

    assert sorted((source, one.principal, one.decode) for source, one in ledger.added) == [
        ("n/one", "ada", 12),
        ("n/one", "bob", 1),
        ("n/two", "ada", 7),
    ]


async def test_a_neuron_cannot_tell_for_another_ones_life() -> None:
    ledger = Brittle()
    made = intake(ledger)
    hostile = status("life", ("ada", 10**12))
    hostile.identity.name = "hostile"
    made.take(hostile)
    made.take(status("life", ("ada", 10)))

    await made.write()

    assert {("n/life", 10), ("hostile/life", 10**12)} == {
        (source, total.decode) for source, total in ledger.added
    }


async def test_names_that_no_store_keeps_and_rows_without_end_are_left_out() -> None:
    ledger = Brittle()
    made = intake(ledger)
    made.take(status("life", ("a\0b", 1), ("c" * 5000, 1), ("ada", 1)))
    made.take(status("life", *[(f"p{number}", 1) for number in range(2 * MOST_SOURCE_ROWS)]))

    await made.write()

    assert len(ledger.added) == MOST_SOURCE_ROWS
    assert ledger.added[0][1].principal == "ada"


async def test_totals_that_cannot_be_take_no_others_with_them() -> None:
    store = SqliteStore(":memory:")
    await store.open()
    usage = UsageLedger(store.ledger, kept_days=1)
    made = DeviceUseIntake(usage)
    for _ in range(3):
        hostile = status("hostile", ("eve", 2**64 - 1), ("eva", 2**64 - 1))
        hostile.identity.name = "hostile"
        made.take(hostile)
        made.take(status("honest", ("ada", 7)))
        await made.write()

    told = {row.principal: row.decode_microseconds for row in await usage.table(EACH)}
    await store.close()

    assert told.pop("ada") == 7
    assert sum(told.values()) <= 3 * MOST_GROWTH


async def test_what_was_being_written_when_it_was_cancelled_is_written_later() -> None:
    class Slow(Brittle):
        async def add_device_use(
            self, source: str, hour: int, totals: Sequence[DeviceTotal], most: int
        ) -> Sequence[DeviceTotal]:
            if self.is_away:
                raise asyncio.CancelledError
            return await super().add_device_use(source, hour, totals, most)

    ledger = Slow()
    made = intake(ledger)
    made.take(status("one", ("ada", 10)))
    made.take(status("two", ("bob", 7)))
    ledger.is_away = True
    with pytest.raises(asyncio.CancelledError):
        await made.write()
    ledger.is_away = False
    await made.write()

    assert {("n/one", 10), ("n/two", 7)} == {
        (source, total.decode) for source, total in ledger.added
    }

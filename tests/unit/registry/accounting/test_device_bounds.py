"""No neuron is believed more than its devices can have worked."""

from __future__ import annotations

import pytest
import structlog.testing

from cortex.v1 import neuron_service_pb2 as neuron
from services.registry.accounting import device_bounds
from services.registry.accounting.device_bounds import DeviceBounds
from services.registry.accounting.device_use import DeviceUseIntake
from services.registry.accounting.usage import UsageLedger
from services.registry.store.ledger import UsageQuery
from services.registry.store.sqlite import SqliteStore

SECOND = 1_000_000
NEW = 2 * 60 * SECOND


class Clock:
    now = 5000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def bounds(clock: Clock) -> DeviceBounds:
    return DeviceBounds(clock)


def test_time_passes_for_each_device_twice(clock: Clock, bounds: DeviceBounds) -> None:
    bounds.heard("n", devices=3)
    clock.now += 10
    bounds.heard("n", devices=3)

    assert bounds.left("n") == 3 * (NEW + 2 * 10 * SECOND)


def test_what_was_believed_is_spent_and_is_told_of_once(clock: Clock, bounds: DeviceBounds) -> None:
    bounds.heard("n", devices=1)

    assert not bounds.told("n", NEW - 1)
    assert bounds.told("n", 1)
    clock.now += 1
    bounds.heard("n", devices=1)
    assert bounds.left("n") == 2 * SECOND
    assert not bounds.told("n", 2 * SECOND)


def test_nobody_saves_up_more_than_an_hour(clock: Clock, bounds: DeviceBounds) -> None:
    for _ in range(1000):
        bounds.heard("n", devices=2)
        clock.now += 60

    assert bounds.left("n") == 2 * (3600 + 2 * 60) * SECOND


def test_one_that_was_cut_off_may_tell_of_all_of_that_time(
    clock: Clock, bounds: DeviceBounds
) -> None:
    bounds.heard("n", devices=1)
    clock.now += 10 * 3600
    bounds.heard("n", devices=1)

    assert bounds.left("n") >= 10 * 3600 * SECOND


def test_devices_without_end_are_not_believed(bounds: DeviceBounds) -> None:
    bounds.heard("n", devices=10**6)

    assert bounds.left("n") == 64 * NEW


def test_of_too_many_those_that_are_silent_are_forgotten(
    clock: Clock, bounds: DeviceBounds, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device_bounds, "_MOST_NEURONS", 2)
    for name in ("first", "silent"):
        bounds.heard(name, devices=1)
    clock.now += 1
    bounds.heard("first", devices=1)

    bounds.heard("third", devices=1)
    bounds.was_away("silent", 10)

    assert 0 == bounds.left("silent")
    assert NEW + 2 * SECOND == bounds.left("first")


def test_others_have_nothing_of_it(bounds: DeviceBounds) -> None:
    bounds.heard("n", devices=1)

    assert bounds.left("other") == 0


async def used(usage: UsageLedger) -> int:
    return sum(row.device_microseconds for row in await usage.table(UsageQuery()))


def report(microseconds: int, *, life: str = "one") -> neuron.NeuronStatus:
    made = neuron.NeuronStatus(identity=neuron.NeuronIdentity(name="n", incarnation_id=life))
    made.report.devices.add()
    made.report.device_use.add(principal="ann", model="m", decode_microseconds=microseconds)
    return made


async def test_a_neuron_that_makes_time_up_is_charged_for_by_the_clock(clock: Clock) -> None:
    store = SqliteStore(":memory:")
    await store.open()
    usage = UsageLedger(store.ledger, kept_days=1)
    intake = DeviceUseIntake(usage, clock)

    with structlog.testing.capture_logs() as logs:
        for seconds in range(1, 4):
            intake.take(report(2**60, life=f"life {seconds}"))  # a new life begins with nothing
            await intake.write()
            clock.now += 3
    believed = await used(usage)
    await store.close()

    assert believed == NEW + 2 * 2 * 3 * SECOND
    assert [line["event"] for line in logs] == ["device_use.clamped"]


async def test_what_was_put_off_is_believed_when_it_can_be(clock: Clock) -> None:
    store = SqliteStore(":memory:")
    await store.open()
    usage = UsageLedger(store.ledger, kept_days=1)
    intake = DeviceUseIntake(usage, clock)
    intake.take(report(NEW + 100 * SECOND))
    await intake.write()
    at_first = await used(usage)

    clock.now += 60
    intake.take(report(NEW + 100 * SECOND))
    await intake.write()
    later = await used(usage)
    await store.close()

    assert at_first == NEW
    assert later == NEW + 100 * SECOND


async def test_a_registry_that_was_away_believes_what_was_done_meanwhile(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteStore(":memory:")
    await store.open()
    usage = UsageLedger(store.ledger, kept_days=1)
    first = DeviceUseIntake(usage, clock)
    first.take(report(SECOND))
    await first.write()
    told_at = await usage.devices_told_at("n/one")
    assert told_at is not None
    monkeypatch.setattr("time.time", lambda: told_at + 7200.0)

    second = DeviceUseIntake(usage, clock)
    second.take(report(7200 * SECOND))
    await second.write()
    believed = await used(usage)
    await store.close()

    assert believed == 7200 * SECOND

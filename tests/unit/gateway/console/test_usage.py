"""Usage by key, model and neuron."""

import pytest

from cortex.v1 import accounting_service_pb2 as pb
from services.backplane.errors import Reason
from services.gateway.console.usage import Usage
from tests.unit.gateway.console.lines import outcome


class Clock:
    now = 600_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_tokens_are_added_up_by_what_is_asked_for(clock):
    usage = Usage(clock, clock)
    usage.note(outcome(principal="ann", prompt_tokens=10, cached_tokens=4, completion_tokens=2))
    usage.note(outcome(principal="ann", model="big", prompt_tokens=1, completion_tokens=1))
    usage.note(outcome(principal="bob", prompt_tokens=5, completion_tokens=5))

    by_key, by_model = usage.table("key", "1h"), usage.table("model", "1h")

    assert [(row["name"], row["prompt_tokens"]) for row in by_key["rows"]] == [
        ("ann", 11),
        ("bob", 5),
    ]
    assert [(row["name"], row["requests"]) for row in by_model["rows"]] == [("tiny", 2), ("big", 1)]
    assert by_key["total"] == by_model["total"]
    assert by_key["total"]["cached_tokens"] == 4


def test_failures_and_those_who_left_are_told_apart(clock):
    usage = Usage(clock, clock)
    usage.note(outcome(principal="", reason=Reason.NO_ROOM, status=503))
    usage.note(outcome(principal="", reason=Reason.CANCELLED, status=499))

    (row,) = usage.table("model", "15m")["rows"]

    assert (row["requests"], row["failed"], row["cancelled"]) == (2, 1, 1)


def test_what_is_older_than_the_window_is_left_out(clock):
    usage = Usage(clock, clock)
    usage.note(outcome(principal="old"))
    clock.now += 20 * 60
    usage.note(outcome(principal="new"))

    assert [row["name"] for row in usage.table("key", "15m")["rows"]] == ["new"]
    assert {row["name"] for row in usage.table("key", "1h")["rows"]} == {"old", "new"}


def test_it_tells_since_when_it_has_counted(clock):
    usage = Usage(clock, clock)
    began = clock.now
    clock.now += 120

    assert usage.table("key", "1h")["since"] == began


def test_a_minute_has_only_so_many_rows_and_loses_nothing(clock):
    usage = Usage(clock, clock)
    for number in range(300):
        usage.note(outcome(principal=f"key {number}", prompt_tokens=1, completion_tokens=0))

    table = usage.table("key", "15m")

    assert table["total"]["prompt_tokens"] == 300
    assert len(table["rows"]) == 257
    assert table["rows"][0]["name"] == "(others)"


def told(hour: int, principal: str = "ann", **counts: int) -> pb.UsageRow:
    return pb.UsageRow(principal=principal, model="tiny", hour_unix_seconds=hour, **counts)


def test_what_the_registry_knows_of_the_day_before_is_counted_too(clock):
    clock.now = 600_000.0 // 3600 * 3600 + 600
    usage = Usage(clock, clock)
    usage.note(outcome(principal="ann", prompt_tokens=1))
    usage.recall([told(usage.first_hour + 3600, requests=2, prompt_tokens=30)])
    usage.recall([told(usage.first_hour + 3600, requests=2, prompt_tokens=30), told(0, requests=9)])

    table = usage.table("key", "24h")

    assert [(row["name"], row["requests"], row["prompt_tokens"]) for row in table["rows"]] == [
        ("ann", 3, 31)
    ]
    assert usage.table("key", "6h")["total"]["requests"] == 1
    assert usage.table("key", "6h")["since"] < clock.now - 5 * 3600


def test_what_this_process_has_counted_itself_is_not_counted_again(clock):
    clock.now = 600_000.0 // 3600 * 3600 + 1800
    usage = Usage(clock, clock)
    begun = int(clock.now) // 3600 * 3600
    usage.note(outcome(principal="ann", requests=3))
    rows = [told(begun, requests=5), told(begun + 3600, requests=7)]
    usage.recall(rows, own=[told(begun, requests=1), told(begun, requests=2)])

    assert usage.table("key", "1h")["total"]["requests"] == 5


def test_what_the_registry_was_not_told_yet_is_taken_off_nothing(clock):
    clock.now = 600_000.0 // 3600 * 3600 + 1800
    usage = Usage(clock, clock)
    usage.note(outcome(principal="ann", requests=50))  # as while no registry answers
    usage.recall([told(int(clock.now) // 3600 * 3600, requests=20)])

    assert usage.table("key", "1h")["total"]["requests"] == 70


def test_an_hour_counts_by_its_part_in_the_window(clock):
    clock.now = 600_000.0 // 3600 * 3600
    usage = Usage(clock, clock)
    usage.recall([told(int(clock.now) - 3600, requests=100)])
    clock.now += 1800 - 60

    assert usage.table("key", "1h")["total"]["requests"] == 50
    assert [row["name"] for row in usage.table("neuron", "1h")["rows"]] == ["(earlier)"]


def test_time_of_devices_alone_is_no_use_by_requests(clock):
    usage = Usage(clock, clock)
    usage.recall([told(usage.first_hour + 3600, decode_microseconds=5)])

    assert usage.table("key", "24h")["rows"] == []


def test_a_process_that_began_with_an_hour_leaves_that_hour_to_itself(clock):
    clock.now = 600_000.0 // 3600 * 3600
    usage = Usage(clock, clock)
    usage.recall([told(int(clock.now), requests=4)])

    assert usage.table("key", "1h")["rows"] == []


def test_an_earlier_hour_has_only_so_many_rows_and_loses_nothing(clock):
    usage = Usage(clock, clock)
    hour = usage.first_hour + 3600
    usage.recall([told(hour, f"key {number}", requests=1) for number in range(300)])

    table = usage.table("key", "24h")

    assert table["total"]["requests"] == 300
    assert len(table["rows"]) == 257


class Clocks:
    """One that is set, and one that is not."""

    wall = 600_000.0
    ticks = 5.0

    def pass_by(self, seconds: float) -> None:
        self.wall += seconds
        self.ticks += seconds

    def usage(self) -> Usage:
        return Usage(lambda: self.wall, lambda: self.ticks)


@pytest.mark.parametrize("by", [-7200.0, 7200.0, 5e8])
def test_a_clock_that_is_set_moves_nothing_that_was_counted(by: float):
    clocks = Clocks()
    usage = clocks.usage()
    usage.note(outcome(requests=1))
    clocks.pass_by(120)
    clocks.wall += by
    usage.note(outcome(requests=1))
    clocks.pass_by(120)

    assert usage.table("key", "15m")["total"]["requests"] == 2
    clocks.pass_by(12 * 60)
    assert usage.table("key", "15m")["total"]["requests"] == 1
    clocks.pass_by(15 * 60)
    assert usage.table("key", "15m")["total"]["requests"] == 0
    assert clocks.wall - 1800 <= usage.table("key", "15m")["since"] <= clocks.wall


def test_once_the_clock_is_set_the_registry_is_asked_again():
    clocks = Clocks()
    usage = clocks.usage()
    assert usage.wants_recall
    usage.recall([told(usage.first_hour + 3600, requests=9)])
    assert not usage.wants_recall
    clocks.pass_by(600)
    clocks.wall += 30 * 86_400

    assert usage.wants_recall
    assert usage.table("key", "24h")["total"]["requests"] == 0
    usage.recall([told(usage.first_hour + 7200, requests=4)])
    assert not usage.wants_recall
    assert usage.table("key", "24h")["total"]["requests"] == 4


def test_what_it_told_the_registry_before_the_clock_was_set_is_counted_once():
    clocks = Clocks()
    usage = clocks.usage()
    wrong = int(clocks.wall) // 3600 * 3600
    usage.note(outcome(principal="ann", requests=3))
    clocks.wall += 2 * 3600
    usage.recall([told(wrong, requests=3)], own=[told(wrong, requests=3)])

    assert usage.table("key", "6h")["total"]["requests"] == 3


def test_a_clock_of_1970_asks_for_no_hour_before():
    clocks = Clocks()
    clocks.wall = 12.0

    assert clocks.usage().first_hour == 0

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from services.gateway.http1.deadline import Deadline


class FakeTimers:
    """A loop's clock and timers, moved by hand; counts the timers that were made."""

    def __init__(self) -> None:
        self.now = 0.0
        self.made = 0
        self.pending: list[FakeHandle] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[[], None]) -> "FakeHandle":
        self.made += 1
        handle = FakeHandle(self, when, callback)
        self.pending.append(handle)
        return handle

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [h for h in self.pending if h.when <= end]:
            first = min(due, key=lambda h: h.when)
            self.pending.remove(first)
            self.now = max(self.now, first.when)
            first.callback()
        self.now = end


class FakeHandle:
    def __init__(self, timers: FakeTimers, when: float, callback: Callable[[], None]) -> None:
        self.timers = timers
        self.when = when
        self.callback = callback

    def cancel(self) -> None:
        self.timers.pending.remove(self)


def make() -> tuple[FakeTimers, Deadline, list[float]]:
    timers = FakeTimers()
    fired: list[float] = []
    loop = cast("asyncio.AbstractEventLoop", cast("Any", timers))
    return timers, Deadline(loop, lambda: fired.append(timers.now)), fired


def test_it_fires_once_when_its_time_has_come() -> None:
    timers, deadline, fired = make()

    deadline.set(5)
    timers.advance(20)

    assert fired == [5]


def test_moving_it_later_costs_no_timer() -> None:
    timers, deadline, fired = make()

    for _ in range(100):
        deadline.set(5)
        timers.advance(0.01)
        deadline.clear()
        deadline.set(5)
    assert timers.made == 1
    timers.advance(10)

    assert fired == [pytest.approx(100 * 0.01 + 5)]


def test_moving_it_earlier_is_obeyed() -> None:
    timers, deadline, fired = make()

    deadline.set(50)
    deadline.set(1)
    timers.advance(100)

    assert fired == [1]


def test_a_cleared_deadline_does_not_fire_and_may_be_set_again() -> None:
    timers, deadline, fired = make()

    deadline.set(5)
    deadline.clear()
    timers.advance(10)
    assert fired == []
    deadline.set(5)
    timers.advance(5)

    assert fired == [15]


def test_cancelling_leaves_no_timer() -> None:
    timers, deadline, _ = make()

    deadline.set(5)
    deadline.cancel()

    assert timers.pending == []

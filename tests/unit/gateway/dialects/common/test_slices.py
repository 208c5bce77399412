"""A thread that works on megabytes rests after each long step."""

import types

import pytest

from services.gateway.dialects.common import slices
from services.gateway.dialects.common.slices import rest, sliced


@pytest.fixture
def clock(monkeypatch):
    """A clock that moves by hand, and by what is slept."""
    clock = types.SimpleNamespace(now=100.0, slept=[])

    def sleep(seconds):
        clock.slept.append(seconds)
        clock.now += seconds

    monkeypatch.setattr(
        slices, "time", types.SimpleNamespace(monotonic=lambda: clock.now, sleep=sleep)
    )
    return clock


def test_a_thread_rests_as_long_as_its_step_took_but_not_for_ever(clock):
    with sliced():
        clock.now += 0.125
        rest()
        clock.now += 10
        rest()

    assert [pytest.approx(0.125), 0.25] == clock.slept


def test_nobody_rests_for_a_short_step_or_outside(clock):
    with sliced():
        clock.now += 0.001
        rest()
    clock.now += 10
    rest()

    assert [] == clock.slept

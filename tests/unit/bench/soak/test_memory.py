"""Growth is what comes behind the warm-up, and one large request is none."""

import os

import pytest

from bench.soak.memory import Course, Watch


def course(*held: int) -> Course:
    return Course("p", at=list(range(len(held))), proportional=list(held), resident=list(held))


def test_a_warm_up_is_no_growth() -> None:
    held = [*range(100, 130), *[200] * 70]

    assert 0.0 == course(*held).growth(held)


def test_what_goes_on_growing_is() -> None:
    held = list(range(1000, 2000))

    assert pytest.approx(0.40, abs=0.03) == course(*held).growth(held)


def test_one_sample_decides_nothing() -> None:
    held = [200] * 100
    held[-1] = 900

    assert 0.0 == course(*held).growth(held)


def test_this_process_holds_something() -> None:
    watch = Watch(lambda: {"me": os.getpid()})
    for _ in range(3):
        watch.sample()

    (mine,) = [one for one in watch.long_lived() if one.name == "me"]
    assert 0 < mine.proportional[-1] <= mine.resident[-1]
    assert 3 == len(mine.at)

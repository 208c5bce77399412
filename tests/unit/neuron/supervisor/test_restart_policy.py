from __future__ import annotations

import pytest

from services.neuron.supervisor.restart_policy import (
    HealthLimits,
    LoadDeaths,
    RequestDeaths,
    RestartPolicy,
    WorkerHealth,
)


def record(limit: int = 5) -> RestartPolicy:
    return RestartPolicy(limit=limit, within_seconds=600, first_pause_seconds=1)


def test_pauses_double_up_to_a_minute():
    deaths = record(limit=100)
    pauses = []

    for second in range(9):
        deaths.note(float(second))
        pauses.append(deaths.pause_seconds)

    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_so_many_deaths_within_the_window_are_too_many():
    deaths = record()

    for second in range(4):
        deaths.note(float(second))
    assert not deaths.is_too_many
    deaths.note(599.0)

    assert deaths.is_too_many


def test_old_deaths_are_forgiven_but_counted():
    deaths = record()
    for second in range(4):
        deaths.note(float(second))

    deaths.note(1000.0)

    assert not deaths.is_too_many
    assert deaths.pause_seconds == 1
    assert deaths.total == 5


def test_the_deaths_of_one_caller_s_requests_do_not_take_the_device():
    deaths = record(limit=3)

    for second in range(20):
        deaths.note(float(second), frozenset({"mallory"} | ({"alice"} if second % 2 else set())))
    assert not deaths.is_too_many
    assert deaths.pause_seconds == 60
    deaths.note(21.0)
    assert not deaths.is_too_many
    deaths.note(22.0, frozenset({"bob"}))

    assert deaths.is_too_many


LIMITS = HealthLimits(stall_seconds=20, load_stall_seconds=120, memory_bytes=100 << 20)


@pytest.mark.parametrize(
    ("health", "words"),
    [
        (WorkerHealth(0.5, 50 << 20), None),
        (WorkerHealth(21, 0), "stood still for 21 s"),
        (WorkerHealth(21, 0, is_loading=True), None),
        (WorkerHealth(121, 0, is_loading=True), "stood still for 121 s"),
        (WorkerHealth(0.1, 0, is_loading=True, load_silent_seconds=121), "no progress for 121 s"),
        (WorkerHealth(0.1, 0, is_loading=False, load_silent_seconds=121), None),
        (WorkerHealth(0.1, 101 << 20), "held 101 MiB; 100 MiB are allowed"),
    ],
)
def test_a_pulse_is_judged(health, words):
    complaint = LIMITS.complaint(health)

    assert complaint is None if words is None else words in (complaint or "")


def test_a_request_goes_on_after_one_death_but_not_after_two_at_one_place():
    deaths = RequestDeaths()

    assert deaths.note(100, is_alone=True)
    assert not deaths.note(110, is_alone=True)


def test_a_request_that_died_twice_among_others_is_suspected_and_goes_on_once_more():
    deaths = RequestDeaths()

    assert deaths.note(0, is_alone=False)
    assert not deaths.is_suspect
    assert deaths.note(5, is_alone=False)
    assert deaths.is_suspect
    assert not deaths.note(10, is_alone=False)


def test_a_suspected_request_that_goes_on_is_cleared():
    deaths = RequestDeaths()
    for _ in range(2):
        deaths.note(10, is_alone=False)

    assert not deaths.is_past(41)
    assert deaths.is_past(42)
    assert deaths.note(42, is_alone=True)
    assert not deaths.is_suspect


def test_a_request_that_went_on_in_between_is_not_blamed_for_the_death_before():
    deaths = RequestDeaths()

    assert [deaths.note(made, is_alone=True) for made in (0, 50, 100, 150)] == [True] * 4
    assert not deaths.note(200, is_alone=True)  # it has been in too many


def test_weights_that_two_workers_died_of_are_not_loaded_until_that_is_long_ago():
    deaths = LoadDeaths()

    deaths.note("a", 0.0)
    assert not deaths.are_too_many("a", 1.0)
    deaths.note("a", 5.0)
    assert deaths.are_too_many("a", 599.0)
    assert not deaths.are_too_many("b", 599.0)
    assert not deaths.are_too_many("a", 600.0)


def test_weights_that_were_loaded_begin_anew():
    deaths = LoadDeaths()
    deaths.note("a", 0.0)
    deaths.forget("a")
    deaths.note("a", 1.0)

    assert not deaths.are_too_many("a", 2.0)


def test_what_died_longest_ago_is_forgotten_first():
    deaths = LoadDeaths()
    for name in ("first", *map(str, range(256))):
        deaths.note(name, 0.0)
        deaths.note(name, 0.0)

    assert not deaths.are_too_many("first", 1.0)
    assert deaths.are_too_many("255", 1.0)

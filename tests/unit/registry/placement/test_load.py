"""The load of one placement: what is told of it, and when it is given up."""

from __future__ import annotations

import pytest

from services.registry.fleet.policy import Policy
from services.registry.fleet.records import LoadProgress
from services.registry.placement.progress import Loading
from tests.doubles.still_fleet import SIZE, StillFleet, profile

A, B, C = profile("a"), profile("b"), profile("c")


def test_a_late_comer_is_told_at_once_how_far_it_is():
    fleet = StillFleet(A)
    fleet.ask("a")
    fleet.control.on_load_progress(fleet.loads[0].order_id, LoadProgress("loading", 3, 4))

    late = fleet.ask("a")

    assert isinstance(late.steps[0], Loading)
    assert late.steps[0].progress.bytes_done == 3


def test_progress_makes_the_estimate_honest():
    fleet = StillFleet(A)
    caller = fleet.ask("a")
    fleet.now += 30

    fleet.control.on_load_progress(fleet.loads[0].order_id, LoadProgress("loading", 3, 4))

    assert isinstance(caller.steps[-1], Loading)
    assert caller.steps[-1].eta_seconds == pytest.approx(10.0)


def test_an_overdue_load_has_no_estimate():
    fleet = StillFleet(A)
    caller = fleet.ask("a")
    fleet.now += 1000

    fleet.control.on_load_progress(fleet.loads[0].order_id, LoadProgress("resolving"))

    assert isinstance(caller.steps[-1], Loading)
    assert caller.steps[-1].eta_seconds is None


def test_a_load_without_progress_is_given_up_and_tried_elsewhere():
    fleet = StillFleet(A, capacities=(SIZE, SIZE), policy=Policy(max_wait=1e6))
    fleet.ask("a")

    fleet.wait(121)

    assert fleet.cancelled == [fleet.loads[0].order_id]
    assert fleet.loads[1].neuron != fleet.loads[0].neuron


def test_a_load_that_makes_progress_is_not_given_up():
    fleet = StillFleet(A, policy=Policy(max_wait=1e6))
    fleet.ask("a")
    for done in range(20):
        fleet.wait(100)
        fleet.control.on_load_progress(fleet.loads[0].order_id, LoadProgress("loading", done, 99))

    assert fleet.cancelled == []

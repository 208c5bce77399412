"""Who waits, for how long, and in which order."""

from __future__ import annotations

import dataclasses

import pytest

from services.backplane.errors import FleetError, Reason
from services.registry.fleet.policy import Policy, Strategy
from services.registry.placement.progress import Queued
from tests.doubles.still_fleet import StillFleet, profile

A, B, C = profile("a"), profile("b"), profile("c")


def test_the_oldest_waits_shortest():
    fleet = StillFleet(A, B, C)
    fleet.serve("a")
    fleet.work("a", 1)
    older = fleet.ask("b")
    fleet.wait(1)
    younger = fleet.ask("c")

    assert isinstance(older.steps[-1], Queued)
    assert isinstance(younger.steps[-1], Queued)
    assert (older.steps[-1].position, younger.steps[-1].position) == (1, 2)
    fleet.work("a", 0)
    fleet.wait(4)
    fleet.finish_unload()
    assert [o.profile.model for o in fleet.loads] == ["a", "b"]


def test_a_wait_has_an_end():
    fleet = StillFleet(A, B)
    fleet.serve("a")
    fleet.work("a", 1)
    waiting = fleet.ask("b")
    fleet.wait(10)  # the drain begins, and lasts

    fleet.wait(50)

    assert waiting.error is not None
    assert waiting.error.reason is Reason.QUEUE_TIMEOUT
    assert waiting.error.retry_after_seconds


def test_the_models_own_bound_counts():
    fleet = StillFleet(A, dataclasses.replace(B, max_wait_seconds=2.0))
    fleet.serve("a")
    fleet.work("a", 1)
    waiting = fleet.ask("b")

    fleet.wait(2)

    assert waiting.error is not None


def test_the_queue_is_bounded():
    fleet = StillFleet(A, policy=Policy(max_waiters=2))
    fleet.ask("a")
    fleet.ask("a")

    with pytest.raises(FleetError) as refused:
        fleet.ask("a")

    assert refused.value.reason is Reason.QUEUE_FULL


def test_waiters_that_leave_are_not_counted():
    fleet = StillFleet(A, policy=Policy(max_waiters=1))
    caller = fleet.ask("a")
    demand = fleet.control.placements.demands[0]
    for ticket in list(demand.tickets):
        fleet.control.leave(ticket)
        fleet.control.leave(ticket)

    assert fleet.control.placements.waiting == 0
    assert fleet.ask("a").steps
    assert not caller.placed


def test_classes_come_before_age_with_priority_until_patience_ends():
    high = dataclasses.replace(C, residency_class=200)
    policy = Policy(
        strategy=Strategy.PRIORITY,
        minimum_residency=4.0,
        patience=10.0,
        max_wait=600,
    )
    fleet = StillFleet(A, B, high, policy=policy)
    fleet.serve("a")
    fleet.work("a", 1)
    fleet.ask("b")
    fleet.wait(1)
    fleet.ask("c")
    fleet.work("a", 0)
    fleet.wait(4)
    fleet.finish_unload()

    assert fleet.loads[-1].profile.model == "c"

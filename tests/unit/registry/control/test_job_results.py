"""Failures of loads, and who is told of them."""

from __future__ import annotations

import pytest

from services.backplane.errors import FleetError, Reason
from tests.doubles.still_fleet import SIZE, StillFleet, profile

A, B, C = profile("a"), profile("b"), profile("c")


def test_out_of_memory_is_tried_once_more_elsewhere():
    fleet = StillFleet(A, capacities=(SIZE, SIZE))
    caller = fleet.ask("a")
    first = fleet.loads[-1].neuron

    fleet.fail_load(FleetError(Reason.OUT_OF_MEMORY, "no"))

    assert len(fleet.loads) == 2
    assert fleet.loads[-1].neuron != first
    fleet.fail_load(FleetError(Reason.OUT_OF_MEMORY, "no"))
    assert caller.error is not None
    assert caller.error.reason is Reason.OUT_OF_MEMORY


def test_after_failing_the_same_again_is_refused_for_a_while_and_a_person_may_insist():
    fleet = StillFleet(A)
    fleet.ask("a")
    fleet.fail_load(FleetError(Reason.MODEL_FILE_BAD, "bad"))

    again = fleet.ask("a")
    assert again.error is not None
    assert again.error.retry_after_seconds == pytest.approx(2.0)
    assert len(fleet.loads) == 1
    fleet.ask("a", retry_failed=True)

    assert len(fleet.loads) == 2

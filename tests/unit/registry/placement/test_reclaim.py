"""Devices of abandoned loads."""

from __future__ import annotations

from services.registry.fleet.policy import Policy
from tests.doubles.still_fleet import StillFleet, profile

A, B, C = profile("a"), profile("b"), profile("c")


def test_a_device_whose_load_was_abandoned_is_free_when_the_neuron_says_so():
    fleet = StillFleet(A, B, policy=Policy(abandoned_loads="drop", settle=60.0))
    fleet.ask("a")
    (ticket,) = fleet.control.placements.demands[0].tickets
    fleet.control.leave(ticket)

    waiting = fleet.ask("b")
    assert len(fleet.loads) == 1
    assert "being freed of a" in waiting.reason
    fleet.now += 0.2
    fleet.report("n0")

    assert [o.profile.model for o in fleet.loads] == ["a", "b"]

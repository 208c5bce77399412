"""What protects an instance from eviction, and for how long."""

from __future__ import annotations

from services.registry.fleet.policy import Policy
from services.registry.fleet.records import (
    Instance,
    InstanceState,
    Member,
    NeuronIdentity,
    NeuronReport,
)
from services.registry.fleet.state import FleetState

INSTANCE = Instance("x", "m", InstanceState.READY, last_used=500.0)


def state() -> FleetState:
    fleet_state = FleetState(lambda: 10.0, Policy(minimum_residency=6.0))
    member = Member(NeuronIdentity("n", "i", "n:1"), 1, NeuronReport(1, instances=(INSTANCE,)))
    fleet_state.activity.observe("n", member, 10.0)
    return fleet_state


def test_without_thrash_and_without_a_caller_nothing_is_protected():
    assert state().protected_until(INSTANCE) == 0.0


def test_an_instance_that_was_never_ready_is_not_protected():
    fleet_state = state()
    fleet_state.activity.observe("n", None, 11.0)

    assert fleet_state.protected_until(INSTANCE) == 0.0


def test_each_time_of_thrash_adds_a_third_up_to_the_whole_residency():
    fleet_state = state()
    found = []
    for _ in range(5):
        fleet_state.displacements.count(["m", "other"], 10.0)
        found.append(fleet_state.protected_until(INSTANCE))

    assert found == [12.0, 14.0, 16.0, 16.0, 16.0]


def test_thrash_of_other_models_protects_nothing():
    fleet_state = state()
    fleet_state.displacements.count(["p", "q"], 10.0)

    assert fleet_state.protected_until(INSTANCE) == 0.0


def test_thrash_is_forgotten_by_halves():
    fleet_state = state()
    fleet_state.displacements.count(["m"], 10.0 - 60.0)

    assert fleet_state.protected_until(INSTANCE) == 11.0


def test_the_full_residency_is_the_load_where_that_was_longer_and_a_hand_over_outlasts_it():
    fleet_state = state()
    fleet_state.displacements.count(["m"] * 3, 10.0)
    record = fleet_state.activity.of("x")
    assert record is not None
    record.load_seconds = 30.0
    assert fleet_state.protected_until(INSTANCE) == 40.0

    fleet_state.activity.hold("x", 60.0, 62.0)

    assert fleet_state.protected_until(INSTANCE) == 62.0

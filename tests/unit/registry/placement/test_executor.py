"""One load for each device and model, and what ends it."""

from __future__ import annotations

from tests.doubles.still_fleet import SIZE, StillFleet, profile

A, B, C = profile("a"), profile("b"), profile("c")


def test_a_neuron_that_restarts_under_a_load_ends_it():
    from services.registry.fleet.records import NeuronIdentity

    fleet = StillFleet(A, capacities=(SIZE,))
    fleet.ask("a")
    fleet.held["n0"].clear()
    fleet.epochs["n0"] = fleet.control.membership.attach(NeuronIdentity("n0", "i2", "n0:1"))
    fleet.report("n0")

    assert fleet.cancelled == [fleet.loads[0].order_id]
    assert len(fleet.loads) == 2
    assert fleet.loads[1].incarnation_id == "i2"


def test_different_models_load_at_once_where_there_are_devices_for_both():
    fleet = StillFleet(A, B, capacities=(SIZE, SIZE))

    fleet.ask("a")
    fleet.ask("b")

    assert {o.profile.model for o in fleet.loads} == {"a", "b"}
    assert len({o.neuron for o in fleet.loads}) == 2


def test_one_device_takes_one_load_at_a_time():
    fleet = StillFleet(A, B, capacities=(2 * SIZE,))
    fleet.ask("a")

    waiting = fleet.ask("b")

    assert len(fleet.loads) == 1
    assert "loading a" in waiting.reason
    fleet.finish_load()
    assert [o.profile.model for o in fleet.loads] == ["a", "b"]

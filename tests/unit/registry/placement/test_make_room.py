"""Room is made by what is true when each victim's turn has come."""

from __future__ import annotations

import dataclasses

from services.backplane.errors import FleetError, Reason
from services.registry.catalogue.separation import complete
from services.registry.fleet.policy import Policy
from services.registry.fleet.records import Instance, InstanceState
from tests.doubles.still_fleet import SIZE, StillFleet, profile

A, B, C = profile("a"), profile("b"), profile("c")
BARE = Policy(minimum_residency=0.0, patience=10.0, handover=0.0, max_wait=600.0)


def test_a_second_victim_may_take_its_time():
    """The few seconds that a report may take are no bound on the next eviction."""
    big = profile("big", memory_bytes=2 * SIZE)
    fleet = StillFleet(A, B, big, capacities=(2 * SIZE,), policy=BARE)
    fleet.serve("a")
    fleet.serve("b")
    waiting = fleet.ask("big")
    fleet.finish_unload()
    assert [o.model for o in fleet.unloads] == ["a", "b"]

    fleet.wait(30.0)

    assert waiting.error is None
    fleet.finish_unload()
    fleet.finish_load(2 * SIZE)
    assert waiting.placed


def test_a_neuron_that_was_cordoned_meanwhile_gets_no_load():
    fleet = StillFleet(A, B, capacities=(SIZE,), policy=BARE)
    fleet.serve("a")
    waiting = fleet.ask("b")
    assert [o.model for o in fleet.unloads] == ["a"]

    fleet.control.cordon("n0", cordoned=True)
    fleet.finish_unload()

    assert [o.profile.model for o in fleet.loads] == ["a"]
    assert "cordoned" in waiting.reason


def test_a_load_begins_in_free_room_beside_an_instance_that_drains():
    """An operator's unload may take an hour; the rest of the device is not idle for that."""
    fleet = StillFleet(A, B, capacities=(2 * SIZE,), policy=BARE)
    fleet.serve("a")
    fleet.work("a", 1)
    held = fleet.held["n0"]
    for key, instance in held.items():
        held[key] = dataclasses.replace(instance, state=InstanceState.DRAINING)
    fleet.report("n0")

    fleet.ask("b")

    assert [o.profile.model for o in fleet.loads] == ["a", "b"]


def test_a_load_that_somebody_else_began_keeps_its_devices():
    """After a fail-over: the instance holds no memory yet, and its device is taken all the same."""
    fleet = StillFleet(A, B, capacities=(SIZE,), policy=BARE)
    foreign = Instance("x", "a", InstanceState.LOADING, {}, config_revision=1, device_ids=("gpu",))
    fleet.held["n0"]["x"] = foreign
    fleet.report("n0")

    waiting = fleet.ask("b")

    assert fleet.loads == []
    assert "loading a" in waiting.reason


def test_a_load_that_nobody_waits_for_ends_where_policy_drops_it():
    dropping = dataclasses.replace(BARE, abandoned_loads="drop", max_wait=5.0)
    fleet = StillFleet(A, policy=dropping)
    waiting = fleet.ask("a")

    fleet.wait(5.0)

    assert isinstance(waiting.error, FleetError)
    assert waiting.error.reason is Reason.QUEUE_TIMEOUT
    assert fleet.cancelled == [fleet.loads[0].order_id]


def test_only_as_many_are_evicted_as_fresh_figures_still_demand():
    """The first victim freed more than was known: the second one stays."""
    big = profile("big", memory_bytes=2 * SIZE)
    fleet = StillFleet(A, B, big, capacities=(2 * SIZE,))
    fleet.serve("a")
    fleet.serve("b")
    fleet.wait(60)
    fleet.ask("big")
    assert [o.model for o in fleet.unloads] == ["a"]
    fleet.capacities["n0"] = 3 * SIZE  # the neuron measures more than the registry expected

    fleet.finish_unload()

    assert [o.model for o in fleet.unloads] == ["a"]
    assert fleet.loads[-1].profile.model == "big"


def test_a_victim_that_became_busy_meanwhile_stays():
    big = profile("big", memory_bytes=2 * SIZE)
    fleet = StillFleet(A, B, big, capacities=(2 * SIZE,))
    fleet.serve("a")
    fleet.serve("b")
    fleet.wait(60)
    waiting = fleet.ask("big")
    fleet.work("b", 1)

    fleet.finish_unload()

    assert [o.model for o in fleet.unloads] == ["a"]
    assert "1 requests in flight" in waiting.reason


def test_a_rival_goes_although_there_is_room_for_both():
    a, b = (dataclasses.replace(p, exclusive_group="x") for p in (A, B))
    pair = complete({"a": a, "b": b}, "")
    fleet = StillFleet(*pair.values(), capacities=(4 * SIZE,), policy=BARE)
    fleet.serve("a")

    waiting = fleet.ask("b")

    assert [o.model for o in fleet.unloads] == ["a"]
    assert [o.profile.model for o in fleet.loads] == ["a"]
    fleet.finish_unload()
    assert [o.profile.model for o in fleet.loads] == ["a", "b"]
    fleet.finish_load(SIZE)
    assert waiting.placed


def test_a_model_from_which_it_is_kept_apart_is_not_loaded_at_the_same_time():
    a = dataclasses.replace(A, apart_from=("b",))
    pair = complete({"a": a, "b": B}, "")
    fleet = StillFleet(*pair.values(), capacities=(4 * SIZE,), policy=BARE)
    fleet.ask("a")

    waiting = fleet.ask("b")

    assert [o.profile.model for o in fleet.loads] == ["a"]
    assert "a is being loaded there, and they are kept apart" in waiting.reason
    fleet.finish_load(SIZE)
    assert [o.model for o in fleet.unloads] == ["a"]


def test_a_pinned_rival_refuses_with_the_reason():
    a = dataclasses.replace(A, exclusive_group="x", pinned=True, min_replicas=1)
    pair = complete({"a": a, "b": dataclasses.replace(B, exclusive_group="x")}, "")
    fleet = StillFleet(*pair.values(), capacities=(4 * SIZE,), policy=BARE)
    fleet.serve("a")

    refused = fleet.ask("b").error

    assert refused is not None
    assert refused.reason is Reason.NO_ROOM
    assert "a (pinned; exclusive group x)" in refused.message

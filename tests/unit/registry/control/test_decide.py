"""A placement that waits for running work turns to what falls idle or free meanwhile."""

from __future__ import annotations

from services.registry.fleet.policy import Policy
from services.registry.placement.progress import Evicting
from tests.doubles.still_fleet import SIZE, Caller, StillFleet, profile

A, B, C, D, E = (profile(name) for name in "abcde")
# Without protections, so that only work is in the way. A load of these sizes takes about 3 s.
BARE = Policy(minimum_residency=0.0, patience=10.0, handover=0.0, max_wait=600.0)
RESTORED = 3.1


def draining_for_c() -> tuple[StillFleet, Caller]:
    """Two neurons, both busy; c has waited for so long that a is drained for it."""
    fleet = StillFleet(A, B, C, D, E, capacities=(SIZE, SIZE), policy=BARE)
    fleet.serve("a")
    fleet.work("a", 1)
    fleet.serve("b")
    fleet.work("b", 1)
    waiting = fleet.ask("c")
    fleet.wait(10.0)
    assert [o.model for o in fleet.unloads] == ["a"]
    return fleet, waiting


def test_an_instance_that_falls_idle_goes_instead_once_the_drain_has_lasted_as_long_as_its_load():
    fleet, waiting = draining_for_c()

    fleet.work("b", 0)
    assert [o.model for o in fleet.unloads] == ["a"], "the drain may end in a moment"
    fleet.wait(RESTORED)

    assert [o.model for o in fleet.unloads] == ["a", "b"]
    fleet.finish_unload()
    fleet.finish_load()
    assert waiting.placed
    assert waiting.placed.neuron == "n1"


def test_it_is_looked_at_again_without_any_news():
    fleet, _ = draining_for_c()
    fleet.work("b", 0)

    due = fleet.control.placements.next_due()

    assert due is not None
    assert 0 < due - fleet.now <= RESTORED


def test_a_drain_that_ends_in_time_costs_nobody_else():
    fleet, waiting = draining_for_c()
    fleet.work("b", 0)

    fleet.finish_unload()
    fleet.finish_load()
    fleet.wait(RESTORED)

    assert [o.model for o in fleet.unloads] == ["a"]
    assert waiting.placed


def test_a_busy_instance_is_never_drained_in_the_place_of_another_drain():
    fleet, _ = draining_for_c()

    fleet.wait(100.0)

    assert [o.model for o in fleet.unloads] == ["a"]


def test_a_demand_that_nobody_waits_for_any_more_turns_to_nothing():
    fleet, waiting = draining_for_c()
    ticket = next(iter(fleet.control.placements.demands[0].tickets))
    assert ticket.waiter is waiting
    fleet.control.leave(ticket)

    fleet.work("b", 0)
    fleet.wait(RESTORED)

    assert [o.model for o in fleet.unloads] == ["a"]


def test_a_demand_gives_up_two_drains_and_no_more():
    """Each idle instance gets work in the very moment of its eviction, and drains in its turn."""
    fleet = StillFleet(A, B, C, D, E, capacities=(SIZE,) * 4, policy=BARE)
    for model in "abde":
        fleet.serve(model)
        fleet.work(model, 1)
    fleet.ask("c")
    fleet.wait(10.0)

    for model in "bde":
        fleet.work(model, 0)
        fleet.wait(RESTORED)
        if fleet.unloads[-1].model == model:
            fleet.work(model, 1)

    assert [o.model for o in fleet.unloads] == ["a", "b", "d"]


def test_an_instance_on_the_same_device_may_go_instead():
    fleet = StillFleet(A, B, C, capacities=(2 * SIZE,), policy=BARE)
    fleet.serve("a")
    fleet.work("a", 1)
    fleet.serve("b")
    fleet.work("b", 1)
    waiting = fleet.ask("c")
    fleet.wait(10.0)
    fleet.work("b", 0)
    fleet.wait(RESTORED)

    assert [o.model for o in fleet.unloads] == ["a", "b"]
    fleet.finish_unload()
    fleet.finish_load()
    assert waiting.placed


def test_free_room_is_taken_at_once():
    fleet, waiting = draining_for_c()

    fleet.capacities["n1"] = 2 * SIZE
    fleet.report("n1")

    assert fleet.loads[-1].profile.model == "c"
    assert fleet.loads[-1].neuron == "n1"
    assert not isinstance(waiting.steps[-1], Evicting)


def test_room_that_becomes_free_elsewhere_ends_the_wait_for_a_drain():
    fleet = StillFleet(A, B, C, capacities=(SIZE, SIZE))
    fleet.serve("a")
    fleet.serve("b")
    fleet.work("a", 1)
    fleet.work("b", 1)
    waiting = fleet.ask("c")
    fleet.wait(10)
    drained = fleet.unloads[-1]
    other = next(n for n in fleet.held if n != drained.neuron)
    fleet.held[other].clear()

    fleet.report(other)

    assert (fleet.loads[-1].profile.model, fleet.loads[-1].neuron) == ("c", other)
    fleet.finish_load()
    assert waiting.placed
    assert waiting.placed.neuron == other
    fleet.work(drained.model, 0)
    fleet.finish_unload()
    assert fleet.control.placements.demands == []

from __future__ import annotations

import dataclasses

import pytest

from services.backplane.errors import FleetError, Reason
from services.backplane.security.principals import SYSTEM
from services.registry.fleet.policy import Policy
from services.registry.placement.orders import UnloadReason
from services.registry.placement.progress import Evicting, Queued
from tests.doubles.still_fleet import SIZE, Caller, StillFleet, profile

A, B, C = profile("a"), profile("b"), profile("c")


def test_all_who_want_a_model_share_one_load():
    fleet = StillFleet(A)
    callers = [fleet.ask("a") for _ in range(5)]

    fleet.finish_load()

    assert len(fleet.loads) == 1
    assert len({c.placed.instance_id for c in callers if c.placed}) == 1
    assert all(c.placed for c in callers)


def answered(fleet: StillFleet, model: str) -> None:
    """A request comes to a loaded model and is answered."""
    fleet.work(model, 1)
    fleet.wait(0.5)
    fleet.work(model, 0)


def swapped(fleet: StillFleet, model: str) -> None:
    """The unload under way ends, and the load behind it."""
    fleet.finish_unload()
    fleet.finish_load()
    assert fleet.loads[-1].profile.model == model


def test_what_nobody_has_asked_for_since_its_last_answer_goes_at_once():
    """One user who takes turns with two models never waits for more than the loads."""
    fleet = StillFleet(A, B)
    fleet.serve("a")
    answered(fleet, "a")
    for model in "babababa":
        fleet.ask(model)

        assert fleet.unloads[-1].for_model == model
        assert len(fleet.unloads) == len(fleet.loads), "not a moment later"
        swapped(fleet, model)
        answered(fleet, model)
        fleet.wait(2.0)


def test_a_model_is_kept_for_a_caller_that_is_on_its_way_and_no_longer():
    fleet = StillFleet(A, B)
    fleet.serve("a")
    waiting = fleet.ask("b")
    assert fleet.unloads == []
    assert "kept for 1.0 s more" in waiting.reason

    answered(fleet, "a")

    assert [o.model for o in fleet.unloads] == ["a"]


def test_models_that_displace_each_other_while_both_are_wanted_are_kept_longer_each_time():
    """Two users, one room: a third of the residency, two thirds, all of it."""
    fleet = StillFleet(A, B, policy=Policy(
        minimum_residency=9.0, patience=60.0, handover=0.0, max_wait=1e6
    ))  # fmt: skip
    fleet.serve("a")
    answered(fleet, "a")
    kept: list[float] = []
    resident = "a"
    for _ in range(4):
        other = "b" if resident == "a" else "a"
        waiting = fleet.ask(other)
        began = fleet.now
        while fleet.unloads[-1:] == [] or fleet.unloads[-1].model != resident:
            fleet.wait(0.1)
        kept.append(fleet.now - began)
        fleet.ask(resident)  # its own user asks again, while the other still waits
        swapped(fleet, other)
        assert waiting.placed
        resident = other

    assert kept[0] == 0.0
    assert kept[1:] == pytest.approx([3.0, 6.0, 9.0], abs=0.5)


def test_a_model_that_was_long_to_load_is_kept_as_long_where_there_is_thrash():
    fleet = StillFleet(A, B, policy=Policy(
        minimum_residency=4.0, patience=1e6, handover=0.0, max_wait=1e6
    ))  # fmt: skip
    fleet.fleet_state.displacements.count(["a"] * 9, fleet.now)
    fleet.ask("a")
    fleet.now += 50
    fleet.finish_load()
    waiting = fleet.ask("b")
    assert "kept for 50.0 s more" in waiting.reason
    step = waiting.steps[-1]
    assert isinstance(step, Queued)
    assert step.eta_seconds == pytest.approx(50.0 + 3.0, abs=0.1)

    fleet.wait(49)
    assert fleet.unloads == []
    fleet.wait(1)

    assert [o.model for o in fleet.unloads] == ["a"]


def test_two_models_that_take_turns_do_not_swap_at_every_request():
    """A B A B at one slot: the second A is served by the A that is there."""
    fleet = StillFleet(A, B)
    fleet.serve("a")
    fleet.work("a", 1)
    first_b = fleet.ask("b")

    second_a = fleet.ask("a")
    second_b = fleet.ask("b")

    assert second_a.placed
    fleet.work("a", 0)
    fleet.wait(5)
    fleet.finish_unload()
    fleet.finish_load()
    assert first_b.placed
    assert second_b.placed
    assert (len(fleet.loads), len(fleet.unloads)) == (2, 1)


def test_nobody_starves_behind_a_model_that_is_always_busy():
    fleet = StillFleet(A, B)
    fleet.serve("a")
    fleet.work("a", 3)
    waiting = fleet.ask("b")
    fleet.wait(9.9)
    assert fleet.unloads == []

    fleet.wait(0.1)

    assert [(o.model, o.why) for o in fleet.unloads] == [("a", UnloadReason.EVICTED)]
    assert fleet.unloads[0].drain_seconds == fleet.fleet_state.policy.drain_timeout
    assert isinstance(waiting.steps[-1], Evicting)


def test_what_the_longest_waiting_waits_for_is_kept_from_younger_ones():
    big = profile("big", memory_bytes=2 * SIZE)
    fleet = StillFleet(A, B, C, big, capacities=(2 * SIZE,))
    fleet.serve("a")
    fleet.work("a", 1)
    fleet.ask("big")
    fleet.wait(10.5)  # big is urgent and drains a

    younger = fleet.ask("b")

    assert [o.model for o in fleet.unloads] == ["a"]
    assert len(fleet.loads) == 1
    assert not younger.placed


@pytest.mark.parametrize(("policy", "cancelled"), [("keep", 0), ("drop", 1), ("displaced", 0)])
def test_a_load_that_nobody_waits_for_follows_the_stated_policy(policy, cancelled):
    fleet = StillFleet(A, policy=Policy(abandoned_loads=policy))
    fleet.ask("a")
    (ticket,) = fleet.control.placements.demands[0].tickets

    fleet.control.leave(ticket)

    assert len(fleet.cancelled) == cancelled
    assert fleet.loads[0].detach is (policy == "keep")


def test_a_caller_that_was_just_sent_to_an_instance_finds_it_there():
    fleet = StillFleet(A, B)
    fleet.serve("a")
    fleet.wait(100)
    assert fleet.ask("a").placed

    fleet.ask("b")
    assert fleet.unloads == []
    fleet.wait(1.0)

    assert [o.model for o in fleet.unloads] == ["a"]


def test_everybody_is_told_when_the_registry_stops():
    fleet = StillFleet(A)
    caller = fleet.ask("a")

    fleet.control.placements.fail_all(FleetError(Reason.SHUTTING_DOWN, "bye"))

    assert caller.error is not None
    assert caller.error.reason is Reason.SHUTTING_DOWN
    assert fleet.control.placements.waiting == 0


def test_a_pinned_model_is_never_a_victim_and_the_refusal_says_so():
    fleet = StillFleet(dataclasses.replace(A, pinned=True, min_replicas=1), B)
    fleet.wait(1)
    fleet.finish_load()
    fleet.wait(100)

    caller = fleet.ask("b")

    assert caller.error is not None
    assert caller.error.reason is Reason.NO_ROOM
    assert "a (pinned)" in caller.error.message


def test_the_documented_bound_on_waiting_holds():
    """docs/placement.md: patience, then for each demand ahead its turn, then one's own load."""
    names = ["a", "b", "c", "d"]
    fleet = StillFleet(*(profile(n) for n in names), policy=Policy(
        minimum_residency=4.0, patience=10.0, max_wait=1e6
    ))  # fmt: skip
    fleet.serve("a")
    fleet.work("a", 5)
    drain, unload, load, residency = 3.0, 1.0, 2.0, 4.0
    came = fleet.now
    waiting = {n: fleet.ask(n) for n in names[1:]}
    while not all(c.placed for c in waiting.values()):
        seen = len(fleet.loads)
        fleet.wait(0.5)
        if fleet.unloads and fleet.unloads[-1].instance_id in fleet.held["n0"]:
            fleet.wait(drain)
            fleet.work(fleet.unloads[-1].model, 0)
            fleet.wait(unload)
            fleet.finish_unload()
        if len(fleet.loads) > seen:
            fleet.wait(load)
            fleet.finish_load()
            fleet.work(fleet.loads[-1].profile.model, 5)
        assert fleet.now < came + 1000
    turn = residency + drain + unload + load
    assert fleet.now - came <= 10.0 + 3 * (turn + 0.5)


def test_who_asked_first_is_charged_for_the_load_and_for_what_goes_for_it():
    fleet = StillFleet(A, B)
    fleet.control.ensure("a", Caller(), principal="ada")
    fleet.control.ensure("a", Caller(), principal="bob")
    fleet.finish_load()
    answered(fleet, "a")

    fleet.control.ensure("b", Caller(), principal="bob")
    fleet.finish_unload()

    assert [one.principal for one in fleet.loads] == ["ada", "bob"]
    assert [one.principal for one in fleet.unloads] == ["bob"]


def test_what_no_request_has_caused_is_charged_to_nobody():
    fleet = StillFleet(A)
    fleet.control.pin("a", "")
    fleet.wait(2.0)

    assert [one.principal for one in fleet.loads] == [SYSTEM]

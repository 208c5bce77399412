from __future__ import annotations

import dataclasses

import pytest

from services.backplane.errors import FleetError, Reason
from services.registry.fleet.policy import Policy
from services.registry.placement.orders import UnloadReason
from services.registry.placement.progress import Evicting, Queued
from tests.doubles.still_fleet import SIZE, StillFleet, profile

A, B, C = profile("a"), profile("b"), profile("c")


def test_all_who_want_a_model_share_one_load():
    fleet = StillFleet(A)
    callers = [fleet.ask("a") for _ in range(5)]

    fleet.finish_load()

    assert len(fleet.loads) == 1
    assert len({c.placed.instance_id for c in callers if c.placed}) == 1
    assert all(c.placed for c in callers)


def test_a_fresh_model_is_kept_for_its_residency_and_the_wait_is_told():
    fleet = StillFleet(A, B)
    fleet.serve("a")

    waiting = fleet.ask("b")

    assert fleet.unloads == []
    assert "kept for 4.0 s more" in waiting.reason
    step = waiting.steps[-1]
    assert isinstance(step, Queued)
    assert step.eta_seconds == pytest.approx(4.0 + 3.0, abs=0.1)
    fleet.wait(4.0)
    assert [o.model for o in fleet.unloads] == ["a"]


def test_a_model_that_was_long_to_load_is_kept_as_long():
    fleet = StillFleet(A, B)
    fleet.ask("a")
    fleet.now += 50
    fleet.finish_load()
    fleet.ask("b")

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

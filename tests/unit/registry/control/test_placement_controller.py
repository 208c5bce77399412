from __future__ import annotations

import dataclasses

import pytest

from services.backplane.errors import FleetError, Reason
from services.registry.fleet.policy import Policy, Strategy
from services.registry.fleet.records import LoadProgress
from services.registry.placement.orders import UnloadReason
from services.registry.placement.progress import Evicting, Loading, Queued
from tests.doubles.still_fleet import SIZE, StillFleet, profile

A, B, C = profile("a"), profile("b"), profile("c")


def test_all_who_want_a_model_share_one_load():
    fleet = StillFleet(A)
    callers = [fleet.ask("a") for _ in range(5)]

    fleet.finish_load()

    assert len(fleet.loads) == 1
    assert len({c.placed.instance_id for c in callers if c.placed}) == 1
    assert all(c.placed for c in callers)


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


@pytest.mark.parametrize(("policy", "cancelled"), [("keep", 0), ("drop", 1), ("displaced", 0)])
def test_a_load_that_nobody_waits_for_follows_the_stated_policy(policy, cancelled):
    fleet = StillFleet(A, policy=Policy(abandoned_loads=policy))
    fleet.ask("a")
    (ticket,) = fleet.control.placements.demands[0].tickets

    fleet.control.leave(ticket)

    assert len(fleet.cancelled) == cancelled
    assert fleet.loads[0].detach is (policy == "keep")


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


def test_a_caller_that_was_just_sent_to_a_copy_finds_it_there():
    fleet = StillFleet(A, B)
    fleet.serve("a")
    fleet.wait(100)
    assert fleet.ask("a").placed

    fleet.ask("b")
    assert fleet.unloads == []
    fleet.wait(1.0)

    assert [o.model for o in fleet.unloads] == ["a"]


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


def test_everybody_is_told_when_the_registry_stops():
    fleet = StillFleet(A)
    caller = fleet.ask("a")

    fleet.control.placements.fail_all(FleetError(Reason.SHUTTING_DOWN, "bye"))

    assert caller.error is not None
    assert caller.error.reason is Reason.SHUTTING_DOWN
    assert fleet.control.placements.waiting == 0


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

"""What is never loaded beside a model, and what that means for its placement."""

from __future__ import annotations

import dataclasses

import pytest

from services.registry.fleet.records import CPU, InstanceState
from services.registry.scheduler import select
from services.registry.scheduler.neuron_info import InstanceInfo, NeuronInfo
from services.registry.scheduler.request import PlacementOutcome
from services.registry.scheduler.rivals import coming, rivals
from tests.unit.registry.scheduler.neurons import (
    MODEL,
    decide,
    device,
    instance,
    neuron_info,
    request,
    where,
)

EXCLUSIVE = dataclasses.replace(MODEL, exclusive_group="big", exclusive_with=("a", "b"))
APART = dataclasses.replace(MODEL, apart_from=("a",))
RATHER = dataclasses.replace(MODEL, rather_apart_from=("a",))


def holding(name: str, *instances: InstanceInfo, free: int = 24, count: int = 1) -> NeuronInfo:
    devices = [device(free, device_id=f"gpu{i}", capacity=48) for i in range(count)]
    models = frozenset(i.model for i in instances)
    return neuron_info(name, *devices, instances=instances, models=models)


def test_a_member_of_the_group_on_the_device_is_a_rival_and_elsewhere_it_is_none():
    there = holding("n", instance("a", device_id="gpu1"), instance("z"), count=2)

    assert rivals(EXCLUSIVE, there, ("gpu1",)) == {"a": "exclusive group big"}
    assert rivals(EXCLUSIVE, there, ("gpu0",)) == {}


def test_a_model_that_is_kept_apart_is_a_rival_anywhere_on_the_neuron():
    there = holding("n", instance("a", device_id="gpu1"), count=2)

    assert rivals(APART, there, ("gpu0",)) == {"a": "anti_affinity"}
    assert rivals(MODEL, there, ("gpu0", "gpu1")) == {}


def test_what_a_model_on_gpus_keeps_in_the_hosts_memory_takes_no_place_on_the_host():
    on_gpu = instance("a", device_ids=frozenset({"gpu0"}))
    on_gpu = dataclasses.replace(on_gpu, memory={"gpu0": 4, CPU: 4})

    assert rivals(EXCLUSIVE, holding("n", on_gpu), (CPU,)) == {}
    assert rivals(EXCLUSIVE, holding("n", on_gpu), ("gpu0",)) == {"a": "exclusive group big"}


def test_a_rival_is_evicted_although_there_is_room_for_both():
    there = holding("n", instance("a", 4), free=44)

    decision = decide(request(EXCLUSIVE), [there])

    assert decision.outcome is PlacementOutcome.EVICT
    assert decision.best is not None
    assert [v.model for v in decision.best.victims] == ["a"]
    assert "after evicting a (exclusive group big)" in decision.best.reason


def test_a_device_without_a_rival_is_taken_before_one_is_evicted():
    there = holding("n", instance("a", 4), free=20, count=2)

    decision = decide(request(EXCLUSIVE), [there])

    assert decision.outcome is PlacementOutcome.FREE_FIT
    assert decision.best is not None
    assert decision.best.device_ids == ("gpu1",)


def test_a_neuron_without_a_rival_is_taken_before_one_is_evicted():
    full = holding("a", instance("a", 4), free=44)
    other = holding("b", free=12)

    assert where(decide(request(APART), [full, other])) == "b"


def test_rivals_and_others_go_together_where_the_rival_alone_frees_too_little():
    there = holding(
        "n",
        instance("a", 4, last_used=9.0),
        instance("z", 20, last_used=1.0),
        instance("y", 20, last_used=5.0),
        free=4,
    )

    decision = decide(request(EXCLUSIVE), [there])

    assert decision.best is not None
    assert [v.model for v in decision.best.victims] == ["z", "a"]


@pytest.mark.parametrize(
    ("facts", "outcome", "word"),
    [
        ({"is_pinned": True}, PlacementOutcome.BLOCKED, "a (pinned; exclusive group big)"),
        (
            {"residency_class": 200},
            PlacementOutcome.BLOCKED,
            "a (class 200 is above 100; exclusive group big)",
        ),
        (
            {"in_flight": 2},
            PlacementOutcome.WAIT,
            "a (2 requests in flight; exclusive group big)",
        ),
        (
            {"protected_until": 104.0},
            PlacementOutcome.WAIT,
            "a (kept for 4.0 s more; exclusive group big)",
        ),
        (
            {"state": InstanceState.LOADING},
            PlacementOutcome.WAIT,
            "a (loading; exclusive group big)",
        ),
    ],
    ids=["pinned", "class", "work", "protected", "loading"],
)
def test_a_rival_is_protected_by_the_usual_rules(facts, outcome, word):
    there = holding("n", instance("a", 4, **facts), free=44)

    decision = decide(request(EXCLUSIVE), [there])

    assert decision.outcome is outcome
    assert word in decision.candidates[0].reason


def test_a_busy_rival_is_drained_for_who_has_waited_long_enough():
    there = holding("n", instance("a", 4, in_flight=1), free=44)

    assert decide(request(EXCLUSIVE, may_drain=True), [there]).outcome is PlacementOutcome.DRAIN


def test_a_model_that_is_about_to_be_loaded_there_is_waited_for():
    there = dataclasses.replace(holding("n"), coming=frozenset({"a"}))

    decision = decide(request(APART), [there])

    assert coming(APART, there) == "a"
    assert decision.outcome is PlacementOutcome.WAIT
    assert "a is being loaded there" in decision.candidates[0].reason
    assert coming(EXCLUSIVE, there) == ""


def test_a_preferred_neighbourhood_decides_between_neurons_and_forbids_none():
    beside, alone = holding("a", instance("a", 4), free=44), holding("b", free=12)

    assert where(decide(request(RATHER), [beside, alone])) == "b"
    assert decide(request(RATHER), [beside]).outcome is PlacementOutcome.FREE_FIT


def test_what_is_explained_is_what_is_decided():
    fleet = [holding("a", instance("a", 4, is_pinned=True), free=44), holding("b", instance("b"))]

    for model in (EXCLUSIVE, APART, RATHER):
        assert decide(request(model), fleet).best == select.explain(request(model), fleet).best

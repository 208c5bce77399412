from __future__ import annotations

import dataclasses

import pytest

from services.registry.fleet.policy import Strategy
from services.registry.fleet.records import InstanceState
from services.registry.scheduler import eviction
from services.registry.scheduler.eviction import Incoming
from services.registry.scheduler.neuron_info import DeviceInfo, InstanceInfo

NOW = 100.0
IDLE = InstanceInfo(
    "i",
    "idle",
    InstanceState.READY,
    {"gpu": 10},
    residency_class=100,
    in_flight=0,
    last_used=50.0,
    protected_until=0.0,
)
LRU = Incoming(100, may_drain=False, now=NOW)
URGENT = dataclasses.replace(LRU, may_drain=True)


def instance(name: str, **facts: object) -> InstanceInfo:
    return dataclasses.replace(IDLE, instance_id=name, model=name, **facts)  # type: ignore[arg-type]


def device(free: int = 0, device_id: str = "gpu") -> DeviceInfo:
    return DeviceInfo(device_id, "cuda", 100, free)


def make_room(
    devices: list[DeviceInfo], need: int, instances: list[InstanceInfo], incoming: Incoming
) -> eviction.EvictionPlan:
    needs = {device.device_id: need for device in devices}
    return eviction.make_room(devices, needs, instances, incoming)


def victims(plan: eviction.EvictionPlan) -> list[str]:
    return [v.model for v in plan.victims]


def test_nothing_goes_where_there_is_room():
    assert make_room([device(10)], 10, [IDLE], LRU) == eviction.EvictionPlan()


def test_the_longest_unused_goes_first():
    plan = make_room(
        [device()], 10, [instance("new", last_used=60), instance("old", last_used=10)], LRU
    )

    assert victims(plan) == ["old"]


def test_the_oldest_that_may_be_displaced_goes_not_the_oldest():
    oldest = instance("oldest", last_used=1, is_pinned=True)

    assert victims(make_room([device()], 10, [oldest, IDLE], LRU)) == ["idle"]


def test_only_as_many_go_as_are_needed():
    small, large = (
        instance("small", last_used=1),
        instance("large", last_used=2, memory={"gpu": 30}),
    )

    plan = make_room([device()], 30, [small, large], LRU)

    assert victims(plan) == ["large"]


@pytest.mark.parametrize(
    ("resident", "incoming", "goes"),
    [(100, 100, True), (100, 200, True), (200, 100, False)],
    ids=["equal", "higher displaces", "lower does not"],
)
def test_a_class_displaces_its_own_and_those_below(resident, incoming, goes):
    plan = make_room(
        [device()],
        10,
        [instance("x", residency_class=resident)],
        dataclasses.replace(LRU, residency_class=incoming),
    )

    assert bool(plan.victims) is goes
    assert plan.is_hopeless is not goes


def test_equal_classes_displace_each_other_both_ways():
    for a, b in (("a", "b"), ("b", "a")):
        assert victims(make_room([device()], 10, [instance(a)], LRU)) == [a], b


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"is_pinned": True}, "pinned"),
        ({"residency_class": 101}, "class 101 is above 100"),
        ({"is_kept": True}, "minimum of replicas"),
    ],
)
def test_what_protects_for_good_is_named(facts, word):
    plan = make_room([device()], 10, [instance("x", **facts)], URGENT)

    assert plan.is_hopeless
    assert word in plan.obstacle


def test_a_higher_class_displaces_a_kept_replica():
    kept = instance("x", is_kept=True)

    plan = make_room([device()], 10, [kept], dataclasses.replace(LRU, residency_class=101))

    assert victims(plan) == ["x"]


def test_work_in_flight_is_never_evicted_and_is_drained_only_for_the_urgent():
    busy = instance("busy", in_flight=2)

    patient = make_room([device()], 10, [busy], LRU)
    urgent = make_room([device()], 10, [busy], URGENT)

    assert not patient.victims
    assert not patient.is_hopeless
    assert "2 requests in flight" in patient.obstacle
    assert urgent.drains


def test_an_idle_instance_goes_before_a_busy_one_even_for_the_urgent():
    busy, idle = instance("busy", in_flight=1, last_used=1), instance("idle", last_used=90)

    assert victims(make_room([device()], 10, [busy, idle], URGENT)) == ["idle"]


def test_minimum_residency_is_a_wait_with_a_known_end():
    plan = make_room([device()], 10, [instance("fresh", protected_until=NOW + 4)], URGENT)

    assert not plan.victims
    assert plan.retry_at == NOW + 4


@pytest.mark.parametrize(
    "state",
    [
        InstanceState.LOADING,
        InstanceState.DRAINING,
        InstanceState.UNLOADING,
        InstanceState.RECOVERING,
        InstanceState.UNKNOWN,
    ],
)
def test_what_is_in_motion_is_waited_for(state):
    plan = make_room([device()], 10, [instance("x", state=state)], URGENT)

    assert not plan.victims
    assert not plan.is_hopeless


def test_a_failed_or_outdated_instance_goes_first_whatever_protects_it():
    useless = instance(
        "useless", is_surplus=True, is_pinned=True, residency_class=999, protected_until=NOW + 9
    )

    assert victims(make_room([device()], 10, [IDLE, useless], LRU)) == ["useless"]


def test_priority_sends_the_lowest_class_first_and_within_it_the_longest_unused():
    incoming = dataclasses.replace(LRU, residency_class=300, strategy=Strategy.PRIORITY)
    low_new = instance("low-new", residency_class=50, last_used=90)
    low_old = instance("low-old", residency_class=50, last_used=80)
    high_old = instance("high-old", residency_class=200, last_used=1)

    plan = make_room([device()], 30, [high_old, low_new, low_old], incoming)

    assert victims(plan) == ["low-old", "low-new", "high-old"]


def test_several_devices_are_cleared_together():
    wide = instance("wide", memory={"gpu": 10, "gpu2": 10}, last_used=1)
    narrow = instance("narrow", memory={"gpu2": 10}, last_used=2)

    plan = make_room([device(), device(device_id="gpu2")], 15, [wide, narrow, IDLE], LRU)

    assert victims(plan) == ["wide", "narrow", "idle"]
    plan = make_room([device(5), device(device_id="gpu2")], 15, [wide, narrow, IDLE], LRU)
    assert victims(plan) == ["wide", "narrow"]


def test_memory_that_others_hold_is_hopeless():
    plan = make_room([device()], 50, [IDLE], LRU)

    assert plan.is_hopeless
    assert "not of this fleet" in plan.obstacle

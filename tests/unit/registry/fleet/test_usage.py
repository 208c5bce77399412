from __future__ import annotations

import dataclasses

import pytest

from services.registry.catalogue.catalogue import Catalogue
from services.registry.catalogue.profile import Profile
from services.registry.control.ready import ReadyInstances
from services.registry.fleet.members import Fleet
from services.registry.fleet.records import (
    Instance,
    InstanceState,
    Member,
    NeuronIdentity,
    NeuronReport,
)
from services.registry.fleet.state import FleetState
from services.registry.fleet.usage import Activity
from services.registry.scheduler.cache import SchedulerCache

INSTANCE = Instance("x", "m", InstanceState.READY, last_used=500.0)


def member(*instances: Instance) -> Member:
    return Member(NeuronIdentity("n", "i", "n:1"), 1, NeuronReport(1, instances=instances))


def test_work_and_a_stamp_that_moves_are_use_and_nothing_else_is():
    activity = Activity()
    activity.observe("n", member(INSTANCE), 10.0)
    activity.observe("n", member(INSTANCE), 20.0)
    record = activity.of("x")
    assert record is not None
    assert record.last_used == 10.0

    activity.observe("n", member(dataclasses.replace(INSTANCE, last_used=501.0)), 30.0)
    assert record.last_used == 30.0
    activity.observe("n", member(dataclasses.replace(INSTANCE, active_requests=1)), 40.0)

    assert record.last_used == 40.0


def test_after_a_restart_of_the_registry_the_order_of_use_is_kept():
    activity = Activity()
    older = dataclasses.replace(INSTANCE, instance_id="old", last_used=400.0)

    activity.observe("n", member(INSTANCE, older), 1000.0)

    new, old = activity.of("x"), activity.of("old")
    assert new is not None
    assert old is not None
    assert (new.last_used, old.last_used) == (1000.0, 900.0)


def test_a_hold_ends_when_whoever_was_on_the_way_has_been_answered():
    activity = Activity()
    activity.observe("n", member(INSTANCE), 10.0)
    record = activity.of("x")
    assert record is not None
    activity.hold("x", 10.0, 12.0)
    activity.observe("n", member(INSTANCE), 10.1)
    assert record.held_until == 12.0, "nobody has come yet"
    activity.observe("n", member(dataclasses.replace(INSTANCE, active_requests=1)), 10.2)
    assert record.held_until == 12.0

    activity.observe("n", member(INSTANCE), 10.3)

    assert record.held_until == 0.0


def test_a_hold_ends_with_an_answer_so_short_that_no_report_shows_its_work():
    activity = Activity()
    activity.observe("n", member(INSTANCE), 10.0)
    activity.hold("x", 10.0, 12.0)

    activity.observe("n", member(dataclasses.replace(INSTANCE, last_used=501.0)), 10.3)

    record = activity.of("x")
    assert record is not None
    assert record.held_until == 0.0


def test_an_instance_that_is_gone_leaves_no_record():
    activity = Activity()
    activity.observe("n", member(INSTANCE), 10.0)

    activity.observe("n", None, 11.0)

    assert activity.of("x") is None


def test_full_means_queued_and_since_when_is_kept():
    activity = Activity()
    full = dataclasses.replace(INSTANCE, queued_requests=2)
    activity.observe("n", member(full), 10.0)
    activity.observe("n", member(full), 20.0)
    record = activity.of("x")
    assert record is not None
    assert record.full_since == 10.0

    activity.observe("n", member(INSTANCE), 30.0)

    assert record.full_since is None


@pytest.mark.parametrize(
    ("busy", "chosen"),
    [({"a": 3, "b": 1}, "b"), ({"a": 1, "b": 1}, "a"), ({"b": 0, "a": 0}, "a")],
    ids=["least busy", "ties by name", "whatever order"],
)
def test_callers_are_sent_to_the_least_busy_instance(busy, chosen):
    profile = Profile("m")
    fleet_state = FleetState(lambda: 0.0, catalogue=Catalogue({"m": profile}, {}, 1))
    fleet: Fleet = fleet_state.fleet
    for name, active in busy.items():
        epoch = fleet.attach(NeuronIdentity(name, "i", f"{name}:1"))
        instance = dataclasses.replace(INSTANCE, instance_id=f"{name}-m", active_requests=active)
        fleet.report(name, epoch, NeuronReport(1, instances=(instance,)), 0.0, None)
    ready_instances = ReadyInstances(fleet_state, SchedulerCache(fleet_state))

    placed = ready_instances.choose(ready_instances.routable(profile), frozenset())

    assert placed is not None
    assert placed.neuron == chosen


@pytest.mark.parametrize(
    ("facts", "is_routable"),
    [
        ({}, True),
        ({"servable": False}, False),
        ({"state": InstanceState.UNKNOWN}, False),
        ({"state": InstanceState.RECOVERING}, False),
        ({"state": InstanceState.DRAINING}, False),
        ({"config_revision": 8}, False),
        ({"config_revision": 0}, True),
    ],
    ids=[
        "silence is servable",
        "squeezed",
        "unknown",
        "recovering",
        "draining",
        "outdated",
        "by hand",
    ],
)
def test_what_is_routed_to(facts, is_routable):
    profile = Profile("m", revision=7)
    fleet_state = FleetState(lambda: 0.0)
    instance = dataclasses.replace(INSTANCE, **{"config_revision": 7, **facts})

    assert fleet_state.is_routable(profile, member(instance), instance) is is_routable


def test_nothing_is_routed_to_a_lost_or_stopping_neuron():
    profile, fleet_state = Profile("m"), FleetState(lambda: 0.0)
    lost = dataclasses.replace(member(INSTANCE), is_lost=True)
    stopping = dataclasses.replace(
        member(INSTANCE), report=NeuronReport(1, instances=(INSTANCE,), is_draining=True)
    )
    cordoned = dataclasses.replace(member(INSTANCE), is_cordoned=True)

    assert [fleet_state.is_routable(profile, m, INSTANCE) for m in (lost, stopping, cordoned)] == [
        False,
        False,
        True,
    ]

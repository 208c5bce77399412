"""What goes and comes without anybody waiting for it."""

from __future__ import annotations

import dataclasses

from services.registry.catalogue.catalogue import Catalogue
from services.registry.catalogue.profile import SamplingDefaults
from services.registry.fleet.policy import Policy
from services.registry.fleet.records import Instance, InstanceState
from services.registry.placement.orders import UnloadReason
from tests.doubles.still_fleet import SIZE, StillFleet, profile

A = profile("a")
BARE = Policy(minimum_residency=0.0, handover=0.0)


def holding(*neurons: str, of: str = "a") -> StillFleet:
    """Three neurons, on some of which the model is loaded; the first is the longest unused."""
    fleet = StillFleet(A, capacities=(SIZE, SIZE, SIZE), policy=BARE)
    for name in neurons:
        fleet.now += 1.0
        fleet.held[name]["gpu"] = Instance(
            f"{of}@{name}", of, InstanceState.READY, {"gpu": SIZE}, config_revision=1
        )
        fleet.report(name)
    return fleet


def test_instances_beyond_the_maximum_of_replicas_go_and_the_last_used_stays():
    fleet = holding("n0", "n1", "n2")

    fleet.wait(1.0)

    assert [(o.instance_id, o.why) for o in fleet.unloads] == [
        ("a@n0", UnloadReason.SURPLUS),
        ("a@n1", UnloadReason.SURPLUS),
    ]
    fleet.wait(10.0)
    assert len(fleet.unloads) == 2


def test_a_surplus_instance_goes_when_its_work_is_done():
    fleet = StillFleet(A, capacities=(SIZE, SIZE), policy=BARE)
    for name in ("n0", "n1"):
        fleet.held[name]["gpu"] = Instance(
            f"a@{name}", "a", InstanceState.READY, {"gpu": SIZE}, config_revision=1,
            active_requests=1,
        )  # fmt: skip
        fleet.report(name)
    fleet.wait(5.0)
    assert fleet.unloads == []

    fleet.held["n0"]["gpu"] = dataclasses.replace(fleet.held["n0"]["gpu"], active_requests=0)
    fleet.report("n0")
    fleet.wait(1.0)

    assert [o.instance_id for o in fleet.unloads] == ["a@n0"]


def test_an_instance_that_a_person_asked_for_on_its_neuron_is_no_surplus():
    fleet = StillFleet(A, capacities=(SIZE, SIZE), policy=BARE)
    fleet.serve("a")
    free = next(n for n in fleet.held if not fleet.held[n])
    fleet.ask("a", neuron=free)
    fleet.finish_load()

    fleet.wait(10.0)

    assert [o.neuron for o in fleet.unloads] == [n for n in fleet.held if n != free]


def test_instances_within_the_maximum_stay():
    fleet = StillFleet(dataclasses.replace(A, max_replicas=2), capacities=(SIZE, SIZE), policy=BARE)
    for name in ("n0", "n1"):
        fleet.held[name]["gpu"] = Instance(
            f"a@{name}", "a", InstanceState.READY, {"gpu": SIZE}, config_revision=1
        )
        fleet.report(name)

    fleet.wait(60.0)

    assert fleet.unloads == []


def test_another_sampling_updates_what_is_loaded_and_unloads_nothing():
    fleet = StillFleet(dataclasses.replace(A, max_replicas=2), capacities=(SIZE, SIZE), policy=BARE)
    for name in ("n0", "n1"):
        fleet.held[name]["gpu"] = Instance(
            f"a@{name}", "a", InstanceState.READY, {"gpu": SIZE}, config_revision=1
        )
        fleet.report(name)
    warm = dataclasses.replace(A, max_replicas=2, sampling=SamplingDefaults(temperature=0.2))

    fleet.control.use(Catalogue({"a": warm}, {}, 2))
    fleet.wait(5.0)

    assert [(o.instance_id, o.profile.sampling) for o in fleet.updates] == [
        ("a@n0", warm.sampling),
        ("a@n1", warm.sampling),
    ]
    assert (fleet.unloads, fleet.loads) == ([], [])


def test_an_update_that_no_report_shows_is_ordered_again_and_one_that_is_shown_is_not():
    fleet = holding("n0")
    warm = dataclasses.replace(A, sampling=SamplingDefaults(top_k=7))
    fleet.control.use(Catalogue({"a": warm}, {}, 2))
    fleet.wait(2.0)
    fleet.wait(11.0)
    assert len(fleet.updates) == 2

    told = dataclasses.replace(fleet.held["n0"]["gpu"], sampling=warm.sampling)
    fleet.held["n0"]["gpu"] = told
    fleet.report("n0")
    fleet.wait(30.0)

    assert len(fleet.updates) == 2


def test_what_was_loaded_by_hand_keeps_its_own_sampling():
    fleet = holding("n0")
    by_hand = dataclasses.replace(
        fleet.held["n0"]["gpu"], config_revision=0, sampling=SamplingDefaults(top_k=3)
    )
    fleet.held["n0"]["gpu"] = by_hand
    fleet.report("n0")

    fleet.wait(5.0)

    assert fleet.updates == []

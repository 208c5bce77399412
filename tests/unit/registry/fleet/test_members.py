from __future__ import annotations

import dataclasses

import pytest

from services.registry.fleet.leases import Lapses, Leases
from services.registry.fleet.members import Fleet, NameTakenError, ReportOutcome
from services.registry.fleet.records import (
    Instance,
    InstanceState,
    NeuronIdentity,
    NeuronReport,
    StoredModel,
)

ONE = NeuronIdentity("one", "i1", "one:1")
READY = Instance("x", "m", InstanceState.READY, {"gpu": 5})


def attached(*instances: Instance, sequence: int = 1) -> tuple[Fleet, int]:
    fleet = Fleet()
    epoch = fleet.attach(ONE)
    assert (
        fleet.report("one", epoch, NeuronReport(sequence, instances=instances), 0.0, None)
        is ReportOutcome.NEWS
    )
    return fleet, epoch


def test_a_stale_report_never_replaces_a_newer_one():
    fleet, epoch = attached(READY, sequence=5)

    assert fleet.report("one", epoch, NeuronReport(4), 1.0, None) is ReportOutcome.STALE
    assert fleet.report("one", epoch - 1, NeuronReport(9), 1.0, None) is ReportOutcome.STALE
    assert fleet.members["one"].report.instances == (READY,)


def test_a_dead_process_cannot_lose_or_remove_the_live_one():
    fleet, old = attached(READY)
    new = fleet.attach(dataclasses.replace(ONE, incarnation_id="i2"))

    assert not fleet.lose("one", old)
    assert not fleet.remove("one", old)
    assert (
        fleet.report("one", old, NeuronReport(9, instances=(READY,)), 1.0, None)
        is ReportOutcome.STALE
    )
    assert fleet.members["one"].epoch == new
    assert fleet.members["one"].report.instances == ()


def test_the_same_process_keeps_its_instances_over_a_broken_stream_but_must_report_first():
    fleet, epoch = attached(READY)
    fleet.lose("one", epoch)

    again = fleet.attach(ONE)

    member = fleet.members["one"]
    assert member.report.instances == (READY,)
    assert not member.has_reported
    assert member.is_lost
    assert (
        fleet.report("one", again, NeuronReport(2, instances=(READY,)), 1.0, None)
        is ReportOutcome.NEWS
    )
    assert fleet.members["one"].has_reported
    assert not fleet.members["one"].is_lost


def test_another_host_cannot_take_a_live_name_and_can_take_a_lost_one():
    fleet, epoch = attached()
    other = NeuronIdentity("one", "i2", "elsewhere:1")

    with pytest.raises(NameTakenError, match="another name"):
        fleet.attach(other)
    fleet.lose("one", epoch)
    fleet.attach(other)

    assert fleet.members["one"].identity == other


def test_changes_are_told_once_each_in_order_and_removals_too():
    fleet, epoch = attached()
    start = fleet.revision
    fleet.attach(NeuronIdentity("two", "i", "two:1"))
    fleet.report("one", epoch, NeuronReport(2, instances=(READY,)), 1.0, None)
    fleet.report("one", epoch, NeuronReport(3), 1.0, None)
    fleet.remove("two")

    changes = fleet.changed_since(start)

    assert changes is not None
    assert [(name, is_member) for _, name, is_member in changes] == [("one", True), ("two", False)]
    assert changes[-1][0] == fleet.revision
    assert fleet.changed_since(fleet.revision) == []
    assert fleet.changed_since(fleet.revision + 1) is None


def test_a_sign_of_life_is_no_change():
    """Thousands of neurons say nothing new every few seconds; no watcher is told of it."""
    fleet, epoch = attached()
    before = fleet.revision

    assert fleet.report("one", epoch, NeuronReport(2), 1.0, "words") is ReportOutcome.ALIVE

    assert fleet.revision == before
    assert fleet.members["one"].report.sequence == 2
    assert fleet.report("one", epoch, NeuronReport(1), 1.0, None) is ReportOutcome.STALE


def test_the_first_report_after_a_loss_is_news():
    fleet, epoch = attached()
    fleet.lose("one")

    assert fleet.report("one", epoch, NeuronReport(2), 1.0, None) is ReportOutcome.NEWS
    assert not fleet.members["one"].is_lost


def test_too_old_a_revision_is_said_to_be_too_old():
    fleet = Fleet()
    for number in range(1100):
        name = f"n{number}"
        fleet.attach(NeuronIdentity(name, "i", f"{name}:1"))
        fleet.remove(name)

    assert fleet.changed_since(1) is None
    assert fleet.changed_since(fleet.revision - 10) is not None


def test_an_announced_instance_is_believed_until_a_report_lists_it():
    fleet, epoch = attached()
    fleet.announce("one", "i1", READY, 0.0)
    loading = dataclasses.replace(READY, state=InstanceState.LOADING)

    fleet.report("one", epoch, NeuronReport(2), 1.0, None)
    assert [i.state for _, i in fleet.instances_of("m")] == [InstanceState.READY]
    fleet.report("one", epoch, NeuronReport(3, instances=(loading,)), 1.5, None)
    assert [i.state for _, i in fleet.instances_of("m")] == [InstanceState.READY]
    fleet.report("one", epoch, NeuronReport(4), 60.0, None)

    assert list(fleet.instances_of("m")) == []


def test_a_report_that_is_ahead_of_a_loads_answer_stands():
    fleet, epoch = attached()
    recovering = dataclasses.replace(READY, state=InstanceState.RECOVERING)
    fleet.report("one", epoch, NeuronReport(2, instances=(recovering,)), 1.0, None)

    fleet.announce("one", "i1", READY, 1.0)

    assert [i.state for _, i in fleet.instances_of("m")] == [InstanceState.RECOVERING]


def test_a_late_report_does_not_bring_a_freed_instance_back():
    fleet, epoch = attached(READY)
    fleet.depart("one", "i1", "x")
    assert fleet.awaits_report("one")

    fleet.report("one", epoch, NeuronReport(2, instances=(READY,)), 1.0, None)
    assert list(fleet.instances_of("m")) == []
    fleet.report("one", epoch, NeuronReport(3), 1.0, None)

    assert not fleet.awaits_report("one")


def test_what_is_stored_is_known_by_model():
    fleet, epoch = attached()
    fleet.report("one", epoch, NeuronReport(2, stored=(StoredModel("s", "path:/s", 7),)), 1.0, None)
    assert fleet.stored("s")["one"].size_bytes == 7

    fleet.report("one", epoch, NeuronReport(3), 1.0, None)

    assert fleet.stored("s") == {}
    assert list(fleet.stored_models()) == []


def test_a_cordon_outlives_the_neurons_absence():
    fleet, _ = attached()
    fleet.cordon("one", cordoned=True)
    fleet.remove("one")
    fleet.attach(ONE)
    assert fleet.members["one"].is_cordoned

    fleet.cordon("one", cordoned=False)

    assert not fleet.members["one"].is_cordoned


def test_a_lapse_marks_lost_first_and_forgets_later():
    leases = Leases(lease_seconds=10, forget_seconds=60)
    leases.renew("a", 0.0)
    leases.renew("b", 1.0)
    leases.renew("a", 5.0)

    assert leases.next_due() == 11.0
    assert leases.lapse(10.9) == Lapses()
    assert leases.lapse(11.0) == Lapses(lost=("b",))
    assert leases.lapse(15.0) == Lapses(lost=("a",))
    leases.renew("a", 20.0)
    assert leases.lapse(71.0) == Lapses(lost=("a",), forgotten=("b",))


def test_a_broken_stream_is_forgotten_from_its_break_on():
    leases = Leases(lease_seconds=10, forget_seconds=60)
    leases.renew("a", 0.0)
    leases.lose("a", 3.0)
    leases.lose("a", 9.0)

    assert leases.lapse(63.0) == Lapses(forgotten=("a",))
    assert leases.next_due() is None


def test_a_farewell_leaves_nothing_due():
    leases = Leases(lease_seconds=10, forget_seconds=60)
    leases.renew("a", 0.0)
    leases.end("a")

    assert leases.next_due() is None

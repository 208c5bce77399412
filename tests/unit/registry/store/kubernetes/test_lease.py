"""The rules of the election, on a Lease that lives in the test."""

from __future__ import annotations

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from services.registry.store.kubernetes.lease import (
    LeaseRecord,
    LeaseWatch,
    body_of,
    record_of,
    released,
    renewed,
)

CLOCK = 1_800_000_000.0


def held(**fields) -> LeaseRecord:
    return LeaseRecord(**{"holder": "other", "seconds": 5, "renewed": "x", "epoch": 7, **fields})


def test_a_lease_is_nobodys_once_it_has_not_changed_for_its_own_time():
    watch = LeaseWatch("me", lease_seconds=2.0)
    watch.see(held(), 100.0)
    watch.see(held(), 104.0)

    assert not watch.may_take(104.9)
    assert watch.may_take(105.0)

    watch.see(held(renewed="y"), 106.0)
    assert not watch.may_take(110.9)


def test_one_that_was_given_up_and_ones_own_are_taken_at_once():
    watch = LeaseWatch("me", lease_seconds=2.0)
    assert watch.may_take(0.0)
    watch.see(released(held(), CLOCK), 1.0)
    assert watch.may_take(1.0)
    watch.see(held(holder="me"), 2.0)
    assert watch.may_take(2.0)


def test_one_without_a_time_is_waited_for_as_for_the_own():
    watch = LeaseWatch("me", lease_seconds=2.5)
    watch.see(held(seconds=0), 1.0)

    assert not watch.may_take(3.9)
    assert watch.may_take(4.0)


def test_epochs_and_transitions_grow_and_epochs_are_no_less_than_the_clock():
    watch = LeaseWatch("me", lease_seconds=2.5)
    first = watch.taken("me:1", clock=CLOCK)
    assert (first.epoch, first.transitions, first.seconds) == (int(CLOCK), 0, 3)

    watch.see(held(epoch=int(CLOCK) + 9, transitions=4), 1.0)
    second = watch.taken("me:1", clock=CLOCK)
    assert (second.epoch, second.transitions) == (int(CLOCK) + 10, 5)
    assert watch.taken("me:1", clock=CLOCK, least_epoch=2**40).epoch == 2**40


def test_a_renewal_keeps_all_but_its_time():
    again = renewed(held(), CLOCK)

    assert again.renewed == "2027-01-15T08:00:00.000000Z"
    assert dataclasses.replace(again, renewed="x") == held()


def test_what_is_written_is_what_is_read_and_what_others_wrote_stays():
    metadata = {"name": "fleet", "labels": {"a": "b"}, "annotations": {"note": "n"}}
    body = body_of(held(address="h:1"), metadata)

    assert record_of(body) == held(address="h:1")
    assert body["metadata"]["labels"] == {"a": "b"}
    assert body["metadata"]["annotations"]["note"] == "n"
    assert record_of({"metadata": {"annotations": None}, "spec": None}) == LeaseRecord()
    odd = {"spec": {"leaseDurationSeconds": "x", "leaseTransitions": -1}}
    assert record_of(odd) == LeaseRecord()


class Member:
    """A registry, with its own clock, and one request on its way."""

    def __init__(self, number: int, lease_seconds: float) -> None:
        self.ahead = 1000.0 * number
        self.lease_seconds = lease_seconds
        self.watch = LeaseWatch(str(number), lease_seconds)
        self.version = -1
        self.asked: tuple[LeaseRecord, int, float] | None = None
        self.held: LeaseRecord | None = None
        self.until = 0.0

    def ask(self, now: float) -> None:
        if self.asked is not None:
            return
        if self.held is not None:
            self.asked = (renewed(self.held, CLOCK + now), self.version, now)
        elif self.version >= 0 and self.watch.may_take(now + self.ahead):
            self.asked = (self.watch.taken("", clock=CLOCK), self.version, now)


class Lease:
    """What the API server keeps."""

    def __init__(self) -> None:
        self.record = LeaseRecord(transitions=-1)
        self.version = 0
        self.epochs: list[int] = []

    def write(self, record: LeaseRecord, version: int) -> bool:
        if version != self.version:
            return False
        if record.transitions != self.record.transitions:
            self.epochs.append(record.epoch)
        self.record, self.version = record, self.version + 1
        return True


def step(lease: Lease, member: Member, what: str, now: float) -> None:
    """One thing that happens to one registry, at a time of the world's."""
    if what == "does all":
        for one in ("looks", "asks", "is answered"):
            step(lease, member, one, now)
    elif what == "looks":
        member.version = lease.version
        member.watch.see(lease.record, now + member.ahead)
        if member.held is not None and lease.record.epoch != member.held.epoch:
            member.held, member.until = None, 0.0
    elif what == "asks":
        member.ask(now)
    elif what == "gives up" and member.held is not None and member.asked is None:
        member.until = 0.0
        lease.write(released(member.held, CLOCK + now), member.version)
        member.held = None
    elif member.asked is not None and what in {"is answered", "is not answered"}:
        (record, version, began), member.asked = member.asked, None
        is_done = lease.write(record, version)
        if what == "is answered" and is_done:
            member.version, member.held = lease.version, record
            member.watch.see(record, now + member.ahead)
            member.until = began + member.lease_seconds
        elif what == "is answered":
            member.held, member.until = None, 0.0


STEPS = st.tuples(
    st.integers(0, 2),
    st.sampled_from(
        ["does all", "looks", "asks", "is answered", "is not answered", "gives up", "does all"]
    ),
    st.sampled_from([0.0, 0.0, 0.1, 0.2, 0.4, 0.7, 1.1]),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(STEPS, min_size=5, max_size=60), st.sampled_from([1.0, 1.5, 2.0]))
def test_never_do_two_lead(steps, lease_seconds):
    """Whatever waits for how long, is lost, or is said by another clock."""
    lease, now = Lease(), 0.0
    members = [Member(number, lease_seconds) for number in range(3)]
    for number, what, seconds in steps:
        now += seconds
        step(lease, members[number], what, now)

        assert sum(now < member.until for member in members) <= 1
    assert lease.epochs == sorted(set(lease.epochs))

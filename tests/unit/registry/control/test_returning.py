"""After a start nothing is placed before the neurons that may hold it are back."""

from __future__ import annotations

import pytest

from services.backplane.errors import Reason
from services.registry.control.returning import neurons_to_wait_for
from services.registry.fleet.policy import Policy
from services.registry.fleet.records import Instance, InstanceState, NeuronIdentity
from tests.doubles.still_fleet import SIZE, StillFleet, profile

A, B = profile("a"), profile("b")
POLICY = Policy(minimum_residency=0.0, handover=0.0, settle=5.0)
HELD = Instance("a#1", "a", InstanceState.READY, {"gpu": SIZE}, config_revision=1)


def just_started(*away: str, expected: frozenset[str] = frozenset({"n0", "n1"})) -> StillFleet:
    return StillFleet(A, B, capacities=(SIZE, SIZE), policy=POLICY, expected=expected, away=away)


def test_what_a_returning_neuron_holds_is_not_loaded_into_free_room_elsewhere():
    fleet = just_started("n1")
    fleet.held["n1"] = {"a#1": HELD}
    caller = fleet.ask("a")
    fleet.wait(4.9)
    assert "waits for its neurons" in caller.reason

    fleet.attach("n1")

    assert caller.placed
    assert caller.placed.instance_id == "a#1"
    assert fleet.loads == []


def test_once_all_are_back_models_are_placed_at_once():
    fleet = just_started("n1")
    fleet.ask("b")

    fleet.attach("n1")

    assert [o.profile.model for o in fleet.loads] == ["b"]


def test_a_neuron_that_does_not_come_back_is_waited_for_no_longer_than_the_settling_time():
    fleet = just_started("n1")
    fleet.ask("a")
    fleet.wait(4.9)
    assert fleet.loads == []

    fleet.wait(0.1)

    assert [o.profile.model for o in fleet.loads] == ["a"]


def test_a_neuron_that_leaves_on_purpose_is_not_waited_for():
    fleet = just_started("n1")
    fleet.ask("a")
    epoch = fleet.control.membership.attach(NeuronIdentity("n1", "i", "n1:1"))
    assert fleet.loads == []

    fleet.control.membership.farewell("n1", epoch)
    fleet.control.advance()

    assert [o.profile.model for o in fleet.loads] == ["a"]


def test_a_first_start_refuses_nobody_before_a_neuron_has_come():
    fleet = just_started("n0", "n1", expected=frozenset())
    caller = fleet.ask("a")
    assert caller.error is None

    fleet.attach("n0")

    assert [o.profile.model for o in fleet.loads] == ["a"]


def test_without_any_neuron_callers_are_refused_after_the_settling_time():
    fleet = just_started("n0", "n1", expected=frozenset())
    caller = fleet.ask("a")

    fleet.wait(5.0)

    assert caller.error is not None
    assert caller.error.reason is Reason.NO_NEURONS


def test_the_end_of_settling_is_news_for_watchers():
    fleet = just_started("n1")
    before = fleet.control.membership.models_version
    assert fleet.control.is_settling
    assert fleet.control.next_due() <= fleet.now + 5.0

    fleet.wait(5.0)

    assert not fleet.control.is_settling
    assert fleet.control.membership.models_version > before


@pytest.mark.parametrize(
    ("remembered", "named", "waited_for"),
    [
        ({"n": "999000 n:1"}, [], {"n"}),
        ({"n": "900000 n:1"}, [], set()),
        ({"n": "0"}, [], set()),
        ({"n": "garbage"}, [], set()),
        ({}, ["n"], {"n"}),
        ({"m": "999999 m:1", "n": "0"}, ["n"], {"m", "n"}),
    ],
    ids=["seen lately", "seen long ago", "left", "unreadable", "named", "both"],
)
def test_who_is_waited_for_after_a_start(remembered, named, waited_for):
    assert neurons_to_wait_for(remembered, named=named, now=1_000_000.0) == waited_for

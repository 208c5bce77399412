"""What open pages are shown: changes once and as they are now, or everything."""

import json
import re

import pytest

from cortex.v1 import registry_service_pb2 as registry
from services.gateway.console.feed import Feed
from services.gateway.console.ledger import RequestLedger
from services.gateway.routing.candidates import Outstanding
from services.gateway.routing.fleet_view import FleetView
from tests.unit.gateway.console.lines import line


class Shown:
    """A feed, and the fleet behind it."""

    def __init__(self):
        self.view = FleetView(Outstanding())
        self.ledger = RequestLedger()
        self.weather = "fair"
        self.feed = Feed(self.view, self.ledger, {"weather": lambda: self.weather})
        self.revision = 0

    def tell(self, **event):
        self.revision += 1
        change = registry.WatchFleetResponse(
            revision=self.revision, registry_incarnation_id="r1", **event
        )
        self.view.apply(change)

    def neuron(self, name, *, sequence=1, **facts):
        message = registry.Neuron(**facts)
        message.identity.name = name
        message.report.sequence = sequence
        self.tell(neuron_changed=message)

    def since(self, number, requests=0):
        self.feed.refresh()
        data = self.feed.since(number, requests)
        return None if data is None else parsed(data)


def parsed(data):
    pattern = r"(?:id: \S+\n)?event: (\w+)\ndata: (.*)\n\n"
    found = re.findall(pattern, data.decode())
    assert "".join(data.decode()) == "".join(
        match[0] for match in re.finditer(pattern, data.decode())
    )
    return [(name, json.loads(told)) for name, told in found]


@pytest.fixture
def shown():
    one = Shown()
    one.tell(snapshot=registry.FleetSnapshot())
    one.feed.refresh()
    return one


def test_changes_are_told_once(shown):
    before = shown.feed.number
    shown.neuron("n1")

    assert [name for name, _ in shown.since(before)] == ["neuron"]
    assert shown.since(shown.feed.number) == []


def test_a_slow_reader_is_told_the_last_state_alone(shown):
    before = shown.feed.number
    for sequence in range(1, 50):
        shown.neuron("n1", sequence=sequence, cordoned=bool(sequence % 2))
        shown.feed.refresh()

    ((name, told),) = shown.since(before)

    assert (name, told["state"]) == ("neuron", "cordoned")


def test_a_report_that_shows_nothing_new_is_no_change(shown):
    shown.neuron("n1", sequence=1)
    shown.feed.refresh()
    before, version = shown.feed.number, shown.feed.changes.version

    shown.neuron("n1", sequence=2)

    assert shown.since(before) == []
    assert shown.feed.changes.version == version


def test_a_neuron_that_comes_back_is_not_gone(shown):
    before = shown.feed.number
    shown.neuron("n1")
    shown.feed.refresh()
    shown.tell(neuron_removed="n1")
    shown.feed.refresh()
    assert shown.since(before) == [("neuron_removed", {"name": "n1"})]

    shown.neuron("n1")

    assert [name for name, _ in shown.since(before)] == ["neuron"]


def test_who_has_missed_too_many_departures_is_given_everything(shown):
    before = shown.feed.number
    for number in range(1002):
        shown.neuron(f"n{number}")
    shown.feed.refresh()
    for number in range(1002):
        shown.tell(neuron_removed=f"n{number}")
        shown.feed.refresh()

    assert shown.since(before) is None
    assert shown.since(shown.feed.number) == []


def test_other_parts_are_told_when_they_change(shown):
    before = shown.feed.number
    shown.weather = "foul"

    assert shown.since(before) == [("weather", "foul")]


def test_of_many_requests_the_newest_are_told_and_the_others_counted(shown):
    for number in range(100):
        shown.ledger.note(line(request_id=str(number)), "tiny")

    ((name, told),) = shown.since(shown.feed.number)

    assert name == "request"
    assert (len(told["requests"]), told["skipped"]) == (40, 60)
    assert told["requests"][-1]["request_id"] == "99"


def test_a_snapshot_has_everything_and_says_of_which_state(shown):
    shown.neuron("n1")
    shown.feed.refresh()

    data = shown.feed.snapshot({"console": "view"})

    assert data.startswith(b"id: r1:2\n")
    ((name, told),) = parsed(data)
    assert name == "snapshot"
    assert told["visitor"] == {"console": "view"}
    assert [one["name"] for one in told["neurons"]] == ["n1"]
    assert (told["models"], told["weather"]) == ([], "fair")


def test_a_line_separator_in_a_name_ends_no_event(shown):
    shown.neuron("n\u2028 1")
    shown.feed.refresh()

    assert "\u2028".encode() not in shown.feed.snapshot({})

from cortex.v1 import operator_service_pb2 as op
from services.backplane import protobuf_time
from services.cli.commands.watching.events import Shown, line_of


def test_an_event_is_one_line_of_what_where_how_long_and_why():
    event = op.FleetEvent(
        number=3,
        at=protobuf_time.timestamp(0.0),
        kind="load.failed",
        model="m",
        neuron="beast",
        detail="[OUT] of memory",
        elapsed=protobuf_time.duration(2.5),
    )

    line = line_of(event).plain

    assert line.endswith("load.failed            m on beast after 2.5 s  ([OUT] of memory)")
    assert "\n" not in line
    bare = line_of(op.FleetEvent(kind="catalogue.reloaded")).plain
    assert bare.rstrip().endswith("catalogue.reloaded")


def test_nothing_in_an_event_does_something_to_the_terminal():
    line = line_of(op.FleetEvent(kind="load.failed", model="a\x1b[2J", detail="b\nc\u202ed")).plain

    assert line.endswith("a\\x1b[2J  (b\\nc\\u202ed)")


def test_what_a_registry_tells_again_is_shown_once_and_another_ones_events_all():
    def of_term(start):
        return [op.FleetEvent(number=n, at=protobuf_time.timestamp(start + n)) for n in (1, 2, 3)]

    shown = Shown()
    first, again, another = of_term(0.0), of_term(0.0), of_term(60.0)

    assert [True, True] == [shown.is_new(each) for each in first[:2]]
    assert [False, False, True] == [shown.is_new(each) for each in again]
    assert [True, True, True] == [shown.is_new(each) for each in another]

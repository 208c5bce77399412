"""Server-sent events out of bytes, wherever they are cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.transports.upstream import sse
from services.gateway.transports.upstream.sse import BrokenStreamError, EventReader

STREAM = (
    b": comment\r\n\r\ndata: one\r\n\r\nevent: x\ndata:two\ndata: lines\nid: 5\n\n\n\ndata: {}\n\n"
)


def read(*chunks: bytes) -> list[bytes]:
    reader = EventReader()
    return [data for chunk in chunks for data in reader.feed(chunk)] + list(reader.end())


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_it_does_not_matter_where_the_bytes_are_cut(places: list[int]):
    cuts = [0, *sorted(places), len(STREAM)]

    found = read(*(STREAM[a:b] for a, b in itertools.pairwise(cuts)))

    assert [b"one", b"two\nlines", b"{}"] == found


def test_a_last_event_needs_no_empty_line():
    assert [b"a", b"b"] == read(b"data: a\n\ndata: b")


def test_events_without_data_keep_a_connection_alone_alive():
    assert [b"a"] == read(b"data:\n\ndata: \n\nid: 1\n\ndata: a\n\ndata:\n\n")


ONE_LINE_EACH = b'data: {"a": 1}\n data: {"b": 2}\r\ndata: {"c": "}"}\n[DONE]\n'


@given(st.lists(st.integers(0, len(ONE_LINE_EACH)), max_size=8))
def test_events_with_one_newline_between_them_are_told_apart(places: list[int]):
    cuts = [0, *sorted(places), len(ONE_LINE_EACH)]

    found = read(*(ONE_LINE_EACH[a:b] for a, b in itertools.pairwise(cuts)))

    assert [b'{"a": 1}', b'{"b": 2}', b'{"c": "}"}', b"[DONE]"] == found


def test_an_event_of_one_line_does_not_wait_for_the_next():
    reader = EventReader()

    assert [b"{}", b"[DONE]"] == list(reader.feed(b"data: {}\ndata: [DONE]\n"))
    assert [] == list(reader.feed(b"\n"))


@pytest.mark.parametrize("data", [b'data: {\ndata: "a":\ndata: {}\ndata: }', b"data: {}x\ndata: 1"])
def test_an_object_of_several_lines_is_one_event(data: bytes):
    assert [data.replace(b"data: ", b"")] == read(data + b"\n\n")


@pytest.mark.parametrize("piece", [b"x" * 64, b"data: x\n", b"data:\n", b"data: " + b"x" * 64])
def test_an_event_without_an_end_is_refused(piece: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sse, "LONGEST_EVENT_BYTES", 1000)
    reader = EventReader()

    def feed() -> None:
        for _ in range(5000):
            assert [] == list(reader.feed(piece))

    with pytest.raises(BrokenStreamError):
        feed()

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


@pytest.mark.parametrize("piece", [b"x" * 64, b"data: x\n", b"data:\n", b"data: " + b"x" * 64])
def test_an_event_without_an_end_is_refused(piece: bytes, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sse, "LONGEST_EVENT_BYTES", 1000)
    reader = EventReader()

    def feed() -> None:
        for _ in range(5000):
            assert [] == list(reader.feed(piece))

    with pytest.raises(BrokenStreamError):
        feed()

"""Frames: what is written can be read, whatever pieces it comes in; what is broken is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.transports import http2
from services.gateway.transports.http2 import Frame, FrameReader, ProtocolError, frame

_KINDS = (http2.DATA, http2.SETTINGS, http2.PING, http2.WINDOW_UPDATE, http2.GOAWAY)
_FRAMES = st.builds(
    Frame, st.sampled_from(_KINDS), st.sampled_from([0, http2.END_STREAM]), st.just(1), st.binary()
)


def read(data: bytes) -> list[Frame]:
    return list(FrameReader().feed(data))


@given(st.lists(_FRAMES, max_size=5), st.data())
def test_frames_survive_any_cut(frames: list[Frame], data: st.DataObject) -> None:
    sent = b"".join(frame(*one) for one in frames)
    cut = data.draw(st.integers(0, len(sent)))
    reader = FrameReader()

    assert [*reader.feed(sent[:cut]), *reader.feed(sent[cut:])] == frames


def test_a_frame_of_more_than_64_kib_keeps_its_size() -> None:
    payload = b"x" * 100_000

    assert read(frame(http2.DATA, 0, 1, payload)) == [Frame(http2.DATA, 0, 1, payload)]


def test_a_header_block_in_pieces_comes_whole() -> None:
    pieces = (
        frame(http2.HEADERS, http2.END_STREAM, 1, b"ab")
        + frame(http2.CONTINUATION, 0, 1, b"cd")
        + frame(http2.CONTINUATION, http2.END_HEADERS, 1, b"ef")
    )

    (whole,) = read(pieces)

    assert whole.payload == b"abcdef"
    assert whole.flags == http2.END_STREAM | http2.END_HEADERS


def test_padding_and_priority_are_taken_off() -> None:
    padded = frame(http2.DATA, http2.PADDED, 1, b"\x02okPP")
    headers = frame(
        http2.HEADERS,
        http2.PADDED | http2.PRIORITY | http2.END_HEADERS,
        1,
        b"\x01" + b"\0" * 5 + b"hP",
    )

    assert [one.payload for one in read(padded + headers)] == [b"ok", b"h"]


@pytest.mark.parametrize("payload", [b"", b"\x05abc"])
def test_more_padding_than_frame_is_refused(payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(frame(http2.DATA, http2.PADDED, 1, payload))


def test_a_frame_larger_than_was_allowed_is_refused_before_it_is_held() -> None:
    head = frame(http2.DATA, 0, 1, b"x" * (http2.MAX_FRAME_BYTES + 1))[:9]

    with pytest.raises(ProtocolError):
        read(head)


def test_headers_without_end_are_refused() -> None:
    piece = b"x" * http2.DEFAULT_FRAME_BYTES
    endless = frame(http2.HEADERS, 0, 1, piece) + frame(http2.CONTINUATION, 0, 1, piece) * 20

    with pytest.raises(ProtocolError):
        read(endless)


def test_settings_say_what_was_said() -> None:
    said = {http2.INITIAL_WINDOW_SIZE: 1 << 20, http2.MAX_FRAME_SIZE: 1 << 16}
    (one,) = read(http2.settings(said))

    assert http2.read_settings(one.payload) == said
    with pytest.raises(ProtocolError):
        http2.read_settings(one.payload[:-1])


def test_a_number_ignores_the_reserved_bit() -> None:
    assert http2.number(b"\xff\xff\xff\xff") == 0x7FFF_FFFF
    with pytest.raises(ProtocolError):
        http2.number(b"\0")

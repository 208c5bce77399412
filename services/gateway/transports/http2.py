"""HTTP/2 frames as far as a gRPC client with one stream needs them: bytes to frames. Pure.

No push, no priorities, no upgrade. Source: RFC 9113.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# The values that hold until a peer sends others.
DEFAULT_WINDOW_BYTES: Final = 65_535
DEFAULT_FRAME_BYTES: Final = 16_384
# How large a frame may be that is sent to us.
MAX_FRAME_BYTES: Final = 1 << 18

DATA: Final = 0x0
HEADERS: Final = 0x1
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY: Final = 0x20

ENABLE_PUSH: Final = 0x2
INITIAL_WINDOW_SIZE: Final = 0x4
MAX_FRAME_SIZE: Final = 0x5

CANCEL: Final = 0x8

_HEAD: Final = struct.Struct(">HBBBI")
_SETTING: Final = struct.Struct(">HI")
_PRIORITY_BYTES: Final = 5
_31_BITS: Final = 0x7FFF_FFFF


class ProtocolError(Exception):
    """The peer has broken the protocol; the message says how."""


class Frame(NamedTuple):
    """One frame, without padding."""

    kind: int
    flags: int
    stream_id: int
    payload: bytes


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One frame as bytes."""
    size = len(payload)
    return _HEAD.pack(size >> 8, size & 255, kind, flags, stream_id) + payload


def settings(values: Mapping[int, int]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*pair) for pair in values.items()))


def read_settings(payload: bytes) -> dict[int, int]:
    """The values in a SETTINGS frame.

    Raises:
        ProtocolError: its size is wrong.
    """
    if len(payload) % _SETTING.size:
        raise ProtocolError("settings of a wrong size")
    return dict(_SETTING.iter_unpack(payload))


def number(payload: bytes) -> int:
    """The 31 bits at the beginning: a window's increment, the last stream of a GOAWAY.

    Raises:
        ProtocolError: the payload is shorter.
    """
    if len(payload) < 4:  # noqa: PLR2004 - octets of 32 bits
        raise ProtocolError("a frame of a wrong size")
    return int.from_bytes(payload[:4], "big") & _31_BITS


class FrameReader:
    """Splits a connection's bytes into frames; a header block always comes as one HEADERS frame."""

    def __init__(self) -> None:
        self._bytes = b""
        self._headers: Frame | None = None

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that are complete with these bytes.

        Raises:
            ProtocolError: a frame is larger than was allowed, or its padding than itself.
        """
        data = self._bytes + data if self._bytes else data
        start, size = 0, len(data)
        while size - start >= _HEAD.size:
            high, low, kind, flags, stream_id = _HEAD.unpack_from(data, start)
            end = start + _HEAD.size + (high << 8 | low)
            if end - start > MAX_FRAME_BYTES + _HEAD.size:
                raise ProtocolError("a frame larger than was allowed")
            if end > size:
                break
            one = Frame(kind, flags, stream_id & _31_BITS, data[start + _HEAD.size : end])
            start = end
            if kind <= HEADERS and flags & (PADDED | PRIORITY):
                one = _bare(one)
            whole = one if kind == DATA else self._join(one)
            if whole is not None:
                yield whole
        self._bytes = data[start:]

    def _join(self, one: Frame) -> Frame | None:
        begun = self._headers
        if one.kind == CONTINUATION and begun is not None:
            one = begun._replace(payload=begun.payload + one.payload, flags=begun.flags | one.flags)
        elif one.kind != HEADERS:
            return one
        if len(one.payload) > MAX_FRAME_BYTES:
            raise ProtocolError("headers that are too large")
        self._headers = None if one.flags & END_HEADERS else one
        return None if self._headers else one


def _bare(one: Frame) -> Frame:
    """DATA or HEADERS without padding and priority."""
    payload, padding = one.payload, 0
    if one.flags & PADDED:
        padding, payload = payload[0] if payload else 1, payload[1:]
    if one.kind == HEADERS and one.flags & PRIORITY:
        payload = payload[_PRIORITY_BYTES:]
    if padding > len(payload):
        raise ProtocolError("more padding than frame")
    return one._replace(payload=payload[: len(payload) - padding])

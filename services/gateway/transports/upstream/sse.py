"""The `data` of server-sent events, out of bytes as they come.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

LONGEST_EVENT_BYTES: Final = 8 << 20
DONE: Final = b"[DONE]"


class BrokenStreamError(Exception):
    """What came is no stream of events; the message says why, for people."""


class EventReader:
    """Takes bytes and gives the data of each event that is whole. Comments are passed over.

    Some servers put no empty line behind an event, blanks before it, or no name before `[DONE]`. So
    a line that is a whole JSON object, or `[DONE]`, is an event by itself: nothing can go on
    behind either.
    """

    def __init__(self) -> None:
        self._rest = bytearray()
        self._searched = 0
        self._data: list[bytes] = []
        self._size = 0
        self._is_tried = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The data of the events that this chunk has completed.

        Raises:
            BrokenStreamError: an event is too long.
        """
        self._rest += chunk
        while (end := self._rest.find(b"\n", self._searched)) >= 0:
            line = bytes(self._rest[:end]).removesuffix(b"\r")
            del self._rest[: end + 1]
            self._searched = 0
            yield from self._take(line)
        self._searched = len(self._rest)
        self._bound(len(self._rest))
        yield from self._alone()

    def end(self) -> Iterator[bytes]:
        """The data of a last event that no empty line stands behind."""
        line = bytes(self._rest).removesuffix(b"\r")
        self._rest.clear()
        self._searched = 0
        yield from self._take(line)
        yield from self._take(b"")

    def _take(self, line: bytes) -> Iterator[bytes]:
        if line.startswith(b" "):
            line = line.lstrip(b" ")
        if line.startswith(b"data:") or line == DONE:
            yield from self._alone()
            piece = line if line == DONE else line[5:].removeprefix(b" ")
            self._bound(len(piece) + 1)
            self._size += len(piece) + 1  # with its end: lines without a byte are kept too
            self._data.append(piece)
            self._is_tried = False
        elif not line and self._data:
            data = self._taken()
            if data.strip():  # some servers keep connections alive so
                yield data

    def _alone(self) -> Iterator[bytes]:
        """The one line of an event that has not ended, where it is one without an end."""
        if len(self._data) != 1 or self._is_tried:
            return
        self._is_tried = True  # once: it may be long, and more may come by single bytes
        if _is_whole(self._data[0]):
            yield self._taken()

    def _taken(self) -> bytes:
        data = b"\n".join(self._data)
        self._data.clear()
        self._size = 0
        return data

    def _bound(self, more: int) -> None:
        if self._size + more > LONGEST_EVENT_BYTES:
            raise BrokenStreamError(f"one event has more than {LONGEST_EVENT_BYTES >> 20} MiB")


def _is_whole(line: bytes) -> bool:
    text = line.strip()
    if text == DONE:
        return True
    if not (text.startswith(b"{") and text.endswith(b"}")):
        return False
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True

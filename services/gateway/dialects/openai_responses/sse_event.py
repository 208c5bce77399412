"""Server-sent events with sequence numbers."""

from __future__ import annotations

from typing import Any

from services.gateway.dialects.common.json_body import encode


class NumberedEvents:
    """Makes the events of one stream, numbered from 0."""

    __slots__ = ("_next",)

    def __init__(self) -> None:
        self._next = 0

    def number(self) -> int:
        """The next sequence number."""
        number = self._next
        self._next += 1
        return number

    def event(self, kind: str, **fields: Any) -> bytes:
        """One event; its kind stands in the event line and in the data."""
        data = encode({"type": kind, "sequence_number": self.number(), **fields})
        return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"

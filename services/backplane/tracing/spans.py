"""Spans, the contexts by which they are joined across services, and who begins them.

A span is told when it has ended; until then it costs its own fields and nothing else. Contexts
travel as the header `traceparent`, in HTTP, in gRPC metadata, and as a field of generations.

Source: W3C Trace Context, https://www.w3.org/TR/trace-context/
"""

from __future__ import annotations

import enum
import re
import secrets
import time
from collections.abc import Mapping
from typing import Final, Protocol

import msgspec

TRACEPARENT: Final = "traceparent"
_FORM: Final = re.compile(
    r"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})"
    r"-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_SAMPLED: Final = 1

Attribute = str | int | float | bool | list[str]


class SpanKind(enum.Enum):
    """Whether a span is work within a process, a call that is served, or a call that is made."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"


class SpanContext(msgspec.Struct, frozen=True):
    """Identifies a span across services (W3C Trace Context).

    Attributes:
        trace_id: 32 hex digits.
        span_id: 16 hex digits.
        is_sampled: whether the trace is recorded; all spans of a trace agree.
    """

    trace_id: str
    span_id: str
    is_sampled: bool

    @property
    def traceparent(self) -> str:
        """The value of the `traceparent` header that passes it on."""
        return f"00-{self.trace_id}-{self.span_id}-{self.is_sampled:02x}"


def read_traceparent(text: str) -> SpanContext | None:
    """Parses a `traceparent`; None where it is empty or malformed."""
    found = _FORM.fullmatch(text)
    if found is None or found["version"] == "ff" or (found["version"] == "00" and found["more"]):
        return None
    if not int(found["trace"], 16) or not int(found["span"], 16):
        return None
    return SpanContext(found["trace"], found["span"], bool(int(found["flags"], 16) & _SAMPLED))


class SpanEvent(msgspec.Struct, frozen=True):
    """Something that happened during a span, at `at` (seconds of Unix time)."""

    name: str
    at: float
    attributes: Mapping[str, Attribute]


class Span(msgspec.Struct):
    """A piece of work. Times are seconds of Unix time.

    Attributes:
        parent: whose part it is; None: it is the first of its trace.
        error_type: why it failed; empty where it did not.
    """

    name: str
    kind: SpanKind
    context: SpanContext
    parent: SpanContext | None
    started_at: float
    ended_at: float
    attributes: dict[str, Attribute]
    events: list[SpanEvent]
    error_type: str = ""

    def note(self, name: str, at: float | None = None, **attributes: Attribute) -> None:
        """Adds an event, of now where no other time is said."""
        self.events.append(SpanEvent(name, time.time() if at is None else at, attributes))


class SpanExporter(Protocol):
    """Sends ended spans to a collector. Neither waits nor raises; drops what it has no room for."""

    def take(self, span: Span) -> None:
        """Queues one span to be sent."""
        ...

    def close(self) -> None:
        """Sends what is queued, for a few seconds at most."""
        ...


class Tracer:
    """Starts spans, and hands those that are sampled to the exporter when they end.

    Args:
        exporter: takes them.
        sample_ratio: which part of the traces that begin here is recorded, 0 to 1. Those that begin
            elsewhere are recorded where they are there.
    """

    def __init__(self, exporter: SpanExporter, *, sample_ratio: float = 1.0) -> None:
        self._exporter = exporter
        self._bound = int(sample_ratio * (1 << 64))

    def start(
        self,
        name: str,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        parent: SpanContext | None = None,
        started_at: float | None = None,
    ) -> Span:
        """Starts a span, now or at `started_at` (Unix seconds); the caller passes it to `end`."""
        if parent is None:
            trace_id = secrets.token_hex(16)
            is_sampled = int(trace_id[16:], 16) < self._bound
        else:
            trace_id, is_sampled = parent.trace_id, parent.is_sampled
        at = time.time() if started_at is None else started_at
        context = SpanContext(trace_id, secrets.token_hex(8), is_sampled)
        return Span(
            name=name,
            kind=kind,
            context=context,
            parent=parent,
            started_at=at,
            ended_at=at,
            attributes={},
            events=[],
        )

    def end(self, span: Span, ended_at: float | None = None) -> None:
        """Ends a span, now or at `ended_at` (Unix seconds), and exports it if it is sampled."""
        if span.context.is_sampled:
            span.ended_at = time.time() if ended_at is None else ended_at
            self._exporter.take(span)

    def close(self) -> None:
        """Sends the spans that are queued, for a few seconds at most."""
        self._exporter.close()

"""One request of an operator while it is served, and how many may be at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

from services.backplane.errors import FleetError, Reason
from services.gateway.api.error_responses import error_headers
from services.gateway.api.head import id_headers
from services.gateway.api.operators.access import Visitor
from services.gateway.api.operators.registry_operator import Metadata
from services.gateway.auth.holder import ConsoleLevel
from services.gateway.dialects.common import openai_body
from services.gateway.dialects.common.json_body import encode
from services.gateway.dialects.dialect import Head
from services.gateway.http1.direct import DirectResponse

# Answers that go on: events, and operations that are watched.
MOST_STREAMS: Final = 64
# Of them those that only operators get: who may only look keeps nobody from draining a neuron.
FOR_OPERATORS: Final = 16

_NOT_KEPT: Final = (b"cache-control", b"no-store")
SAFE_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class OperatorCall:
    """One request to `/ui` or `/admin` while it is served.

    Attributes:
        visitor: who asks.
        head: of the request.
        body: the whole of it; empty for GET.
        response: its answer.
        recheck: raises what the visitor is refused with now, where keys have changed meanwhile.
        metadata: who he is, for the registry's audit log.
        target: what an operation is about, for the gateway's own; set while it is carried out.
        error: what it was answered with, where that was one.
        is_started: the head of the answer was given.
    """

    __slots__ = (
        "_ended_by",
        "_is_gone",
        "_task",
        "body",
        "error",
        "head",
        "is_started",
        "metadata",
        "recheck",
        "response",
        "target",
        "visitor",
    )

    def __init__(
        self,
        visitor: Visitor,
        head: Head,
        body: bytes,
        response: DirectResponse,
        recheck: Callable[[], object],
    ) -> None:
        self.visitor = visitor
        self.head = head
        self.body = body
        self.response = response
        self.recheck = recheck
        self._task = asyncio.current_task()
        self._ended_by: FleetError | None = None
        self._is_gone = False
        self.is_started = False
        self.metadata: Metadata = ()
        self.target = ""
        self.error: FleetError | None = None

    def leave(self) -> None:
        """Ends it because the client has left."""
        self._is_gone = True
        self.end(FleetError(Reason.CANCELLED, "The client has gone."))

    def end(self, error: FleetError) -> None:
        """Ends the call early, with an error."""
        if self._ended_by is None and self._task is not None:
            self._ended_by = error
            self._task.cancel()

    def close(self) -> None:
        """Marks the call as over: nothing can end it any more."""
        self._task = None

    def cancelled(self) -> FleetError | None:
        """Why `end` has cancelled the call, undoing that; None if another has cancelled it."""
        if self._ended_by is not None and self._task is not None:
            self._task.uncancel()
        return self._ended_by

    def answer(self, value: Any, status: int = 200) -> None:
        """Answers with JSON."""
        kind = (b"content-type", b"application/json")
        headers = [kind, _NOT_KEPT, *SAFE_HEADERS, *id_headers(self.head)]
        self._start(status, headers)
        self.response.finish(encode(value))

    def begin_events(self) -> None:
        """Answers with a stream of server-sent events; the head goes out at once."""
        headers = [
            (b"content-type", b"text/event-stream"),
            (b"x-accel-buffering", b"no"),  # keeps nginx from collecting the events
            _NOT_KEPT,
            *SAFE_HEADERS,
            *id_headers(self.head),
        ]
        self._start(200, headers)
        self.response.write(b"")

    def event(self, name: str, value: Any, event_id: str = "") -> None:
        """Sends one event."""
        self.response.write(event_bytes(name, encode(value), event_id))

    def fail(self, error: FleetError) -> None:
        """Answers with an error: by its status, or as the last event of a stream."""
        self.error = error
        if self._is_gone:
            return
        if self.is_started:
            self.response.finish(event_bytes("error", openai_body.envelope(error)))
            return
        headers = [*error_headers(error, self.head.request_id), _NOT_KEPT, *SAFE_HEADERS]
        self._start(error.reason.row.http, headers)
        self.response.finish(openai_body.envelope(error))

    def _start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        self.response.start(status, headers)
        self.is_started = True


def event_bytes(name: str, data: bytes, event_id: str = "") -> bytes:
    """One server-sent event; `data` is one line."""
    head = f"id: {event_id}\nevent: {name}\ndata: " if event_id else f"event: {name}\ndata: "
    return head.encode() + data + b"\n\n"


class OpenCalls:
    """The calls to `/ui` and `/admin` that are being served; bounded in number."""

    def __init__(self) -> None:
        self._calls: set[OperatorCall] = set()
        self._closed_by: FleetError | None = None

    def begin(self, call: OperatorCall, refusal: FleetError | None) -> None:
        """Counts a call, unless it was refused before.

        Raises:
            FleetError: the refusal; RATE_LIMITED: there are too many; or why they were closed.
        """
        refusal = refusal or self._closed_by
        if refusal is not None:
            raise refusal
        operates = call.visitor.level >= ConsoleLevel.OPERATE
        most = MOST_STREAMS if operates else MOST_STREAMS - FOR_OPERATORS
        if len(self._calls) >= most:
            raise FleetError(
                Reason.RATE_LIMITED,
                f"{most} requests of consoles are open already; close some pages.",
                retry_after_seconds=10,
            )
        self._calls.add(call)

    def forget(self, call: OperatorCall) -> None:
        """The call has ended."""
        self._calls.discard(call)

    def close(self, error: FleetError) -> None:
        """Ends all, and refuses others."""
        self._closed_by = error
        for call in tuple(self._calls):
            call.end(error)

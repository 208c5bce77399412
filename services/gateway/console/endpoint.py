"""Serves the console's requests: who asks, the body, errors, and answers that go on."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.backplane.timeouts import timeout
from services.gateway.api.auth import ConsoleLevel
from services.gateway.api.body import ClientGoneError, IncomingBody
from services.gateway.api.error_responses import error_headers
from services.gateway.api.head import id_headers, read_head
from services.gateway.console.access import ConsoleAccess, Visitor
from services.gateway.dialects.common import openai_body
from services.gateway.dialects.common.json_body import encode
from services.gateway.dialects.dialect import Head
from services.gateway.http1.budget import BodyBudget, Pace
from services.gateway.http1.direct import DirectResponse
from services.gateway.http1.pumped import direct_response

# An operation is a few names.
MOST_BODY_BYTES: Final = 64 << 10
_BODY_SECONDS: Final = 10.0
# Answers that go on: events, and operations that are watched.
MOST_STREAMS: Final = 64
# Of them those that only operators get: who may only look keeps nobody from draining a neuron.
FOR_OPERATORS: Final = 16

_NOT_KEPT: Final = (b"cache-control", b"no-store")
SAFE_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


class Call:
    """One request of the console while it is served.

    Attributes:
        visitor: who asks.
        head: of the request.
        body: the whole of it; empty for GET.
        response: its answer.
        recheck: raises what the visitor is refused with now, where keys have changed meanwhile.
        is_started: the head of the answer was given.
    """

    __slots__ = (
        "_ended_by",
        "_is_gone",
        "_task",
        "body",
        "head",
        "is_started",
        "recheck",
        "response",
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

    def leave(self) -> None:
        """Ends it because the client has left."""
        self._is_gone = True
        self.end(FleetError(Reason.CANCELLED, "The client has gone."))

    def end(self, error: FleetError) -> None:
        """Ends it early."""
        if self._ended_by is None and self._task is not None:
            self._ended_by = error
            self._task.cancel()

    def close(self) -> None:
        """Nothing can end it any more: it is over."""
        self._task = None

    def cancelled(self) -> FleetError | None:
        """Why `end` has cancelled its task, and takes that back; None: somebody else has."""
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
    """The console's requests under way, of which only so many may go on."""

    def __init__(self) -> None:
        self._calls: set[Call] = set()
        self._closed_by: FleetError | None = None

    def begin(self, call: Call, refusal: FleetError | None) -> None:
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

    def forget(self, call: Call) -> None:
        """The call has ended."""
        self._calls.discard(call)

    def close(self, error: FleetError) -> None:
        """Ends all, and refuses others."""
        self._closed_by = error
        for call in tuple(self._calls):
            call.end(error)


class ConsoleEndpoint:
    """An ASGI app: one path of the console.

    Args:
        access: lets visitors in.
        calls: those under way.
        faults: notes what nobody foresaw.
        needs: what a visitor must be allowed to do.
        work: answers the call. What it raises is told; a stream that it has begun ends with it.
    """

    def __init__(
        self,
        access: ConsoleAccess,
        calls: OpenCalls,
        faults: Faults,
        needs: ConsoleLevel,
        work: Callable[[Call], Awaitable[None]],
    ) -> None:
        self._access = access
        self._calls = calls
        self._faults = faults
        self._needs = needs
        self._work = work

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        head = read_head(scope)
        admit = functools.partial(self._access.visitor, scope, head.headers, self._needs)
        body, visitor, refusal = b"", Visitor("", ConsoleLevel.NONE), None
        try:
            visitor = admit()
            if scope["method"] == "POST":
                body = await _read(head, receive)
        except FleetError as error:
            refusal = error
        except ClientGoneError:
            return
        response = direct_response(scope, receive, send)
        call = Call(visitor, head, body, response, admit)
        response.on_close(call.leave)
        try:
            self._calls.begin(call, refusal)
            await self._work(call)
        except FleetError as error:
            call.fail(error)
        except asyncio.CancelledError:
            ended_by = call.cancelled()
            if ended_by is None:
                raise
            call.fail(ended_by)
        except Exception as error:  # noqa: BLE001 - must not look like a broken connection
            bug = self._faults.note("console", error, request_id=head.request_id)
            call.fail(bug)
        finally:
            call.close()
            self._calls.forget(call)
            await response.aclose()


async def _read(head: Head, receive: Receive) -> bytes:
    """The body of an operation.

    Raises:
        FleetError: it is no JSON by its type, too large, or too slow.
    """
    kind = head.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        told = f"The body is {kind or 'of no type'!r}; the console reads application/json."
        raise FleetError(Reason.UNSUPPORTED_MEDIA_TYPE, told)
    incoming = IncomingBody(
        max_bytes=MOST_BODY_BYTES,
        budget=BodyBudget(MOST_BODY_BYTES),
        pace=Pace(grace_seconds=_BODY_SECONDS, bytes_per_second=MOST_BODY_BYTES),
    )
    try:
        async with timeout(_BODY_SECONDS):
            return await incoming.read(receive)
    except TimeoutError:
        told = f"The body did not come within {_BODY_SECONDS:g} seconds."
        raise FleetError(Reason.BODY_TOO_SLOW, told) from None

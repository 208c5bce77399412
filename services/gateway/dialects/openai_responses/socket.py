"""Responses over a WebSocket. Turns of one lane (`stream_id`) run in order, lanes in parallel.

Each `response.create` runs like a request to the HTTP endpoint, so that keys, limits, errors and
logs are the same; its events are sent as messages. A response that is not stored can be continued
as long as its connection lives.
Source: the Open Responses specification, WebSocket mode; OpenAI's OpenAPI document for lanes.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.backplane.errors import FleetError, Reason
from services.backplane.timeouts import timeout
from services.gateway.dialects.openai_responses.store.responses import (
    ConnectionResponses,
    Responses,
)

# Turns that a client may ask for while one of the same lane runs.
_WAITING: Final = 16
# Lanes of one connection on which turns run at once, and what may be the name of one.
_LANES: Final = 16
_LANE: Final = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_OURS: Final = (b"connection", b"upgrade", b"content-length", b"content-type", b"x-request-id")
_GOING_AWAY: Final = 1001

_TOO_MANY: Final = {
    "type": "invalid_request_error",
    "code": "websocket_stream_limit_reached",
    "message": "This WebSocket connection has reached its stream limit.",
    "param": "stream_id",
}

_FAILED: Final = {
    "type": "server_error",
    "code": "server_error",
    "message": "The service failed; its log says why.",
    "param": None,
}

log = structlog.get_logger()


class ResponsesSocket:
    """An ASGI app for `ws://…/v1/responses`.

    Args:
        store: finds and keeps stored responses.
        make: the HTTP endpoint of one connection, over what that connection keeps.
        idle_seconds: a connection is closed on which nothing has run or come for this long.
    """

    def __init__(
        self,
        store: Responses,
        make: Callable[[Responses], ASGIApp],
        *,
        idle_seconds: float,
    ) -> None:
        self._store = store
        self._make = make
        self._idle_seconds = idle_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection until the client leaves."""
        await receive()
        await send({"type": "websocket.accept"})
        kept = ConnectionResponses(self._store)
        connection = _Connection(self._make(kept), kept, scope, send)
        try:
            while (message := await self._next(connection, receive)) is not None:
                if message["type"] != "websocket.receive":
                    return
                await connection.take(message)
            told = f"Nothing was asked for {self._idle_seconds:g} seconds."
            await send({"type": "websocket.close", "code": _GOING_AWAY, "reason": told})
        finally:
            await connection.close()

    async def _next(self, connection: _Connection, receive: Receive) -> Message | None:
        """The next message; None once the connection has been idle for too long."""
        while (left := self._idle_seconds - connection.idle_seconds()) > 0:
            try:
                async with timeout(left):
                    return await receive()
            except TimeoutError:
                continue  # unless turns ran meanwhile
        return None


class _Connection:
    """The turns of one connection: in order within a lane, lanes in parallel."""

    def __init__(self, app: ASGIApp, kept: ConnectionResponses, scope: Scope, send: Send) -> None:
        self._app = app
        self._kept = kept
        self._scope = _http_scope(scope)
        self._send = send
        # By `stream_id`; None is the lane of those that name none. A lane ends with its last turn.
        self._lanes: dict[str | None, asyncio.Queue[_Asked]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._quiet_since = time.monotonic()

    def idle_seconds(self) -> float:
        """Seconds since a turn last ran or waited."""
        return 0.0 if self._lanes else time.monotonic() - self._quiet_since

    async def take(self, message: Message) -> None:
        """Queues a turn; does not return while the queue of its lane is full."""
        text = message.get("text")
        asked = _read(text.encode() if text is not None else message.get("bytes") or b"")
        lane = self._lanes.get(asked.stream_id)
        if lane is None:
            if len(self._lanes) >= _LANES:
                await self._refuse(_TOO_MANY, asked.stream_id)
                return
            lane = self._lanes[asked.stream_id] = asyncio.Queue(_WAITING)
            task = asyncio.create_task(self._run(asked.stream_id, lane))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await lane.put(asked)

    async def close(self) -> None:
        """Ends what runs."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, stream_id: str | None, lane: asyncio.Queue[_Asked]) -> None:
        """Runs the turns of one lane until none is left."""
        try:
            # the first has been put in before this task begins
            while not lane.empty():
                asked = lane.get_nowait()
                try:
                    if asked.refusal is None:
                        await self._turn(asked)
                    else:
                        await self._refuse(asked.refusal, stream_id)
                except Exception as error:  # noqa: BLE001 - those behind it must not end with it
                    await self._broke(asked, error)
        finally:
            del self._lanes[stream_id]
            self._quiet_since = time.monotonic()

    async def _turn(self, asked: _Asked) -> None:
        turn = _Turn(asked.body, self._send, asked.stream_id)
        await self._app(self._scope, turn.receive, turn.send)
        if turn.has_failed and asked.previous_id is not None:
            self._kept.evict(asked.previous_id)

    async def _broke(self, asked: _Asked, error: Exception) -> None:
        """Tells that a turn ended by what nobody foresaw; the socket itself may be what failed."""
        log.error("fault.contained", place="websocket-turn", exc_info=error)
        if asked.previous_id is not None:
            self._kept.evict(asked.previous_id)
        event = msgspec.json.encode({"type": "error", "status": 500, "error": _FAILED})
        with contextlib.suppress(Exception):
            await _tell(self._send, event, asked.stream_id)

    async def _refuse(self, refusal: Mapping[str, Any], stream_id: str | None) -> None:
        event = msgspec.json.encode({"type": "error", "status": 400, "error": refusal})
        await _tell(self._send, event, stream_id)


@dataclasses.dataclass(frozen=True, slots=True)
class _Asked:
    """One message of the client's.

    Attributes:
        body: of the request that it is, as JSON.
        previous_id: the response that it goes on from.
        stream_id: the lane, which every event of the turn repeats.
        refusal: why it is none.
    """

    body: bytes = b""
    previous_id: str | None = None
    stream_id: str | None = None
    refusal: Mapping[str, Any] | None = None


def _read(message: bytes) -> _Asked:
    try:
        return _asked(msgspec.json.decode(message, type=dict[str, Any]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _Asked(refusal=_refusal(f"The message is no JSON object: {error}"))


def _asked(body: dict[str, Any]) -> _Asked:
    stream_id = body.pop("stream_id", None)
    if stream_id is not None and not (isinstance(stream_id, str) and _LANE.fullmatch(stream_id)):
        told = "stream_id: Expected up to 256 letters, digits, dots, dashes and underscores."
        return _Asked(refusal=_refusal(told, "stream_id"))
    kind = body.pop("type", None)
    if kind != "response.create":
        told = f"{kind!r} is no message of this API: response.create is."
        return _Asked(stream_id=stream_id, refusal=_refusal(told))
    # how an answer travels is not for the message to say
    for field in ("stream", "stream_options", "background"):
        body.pop(field, None)
    previous_id = body.get("previous_response_id")
    return _Asked(
        msgspec.json.encode(body | {"stream": True}),
        previous_id if isinstance(previous_id, str) else None,
        stream_id,
    )


def _refusal(message: str, param: str | None = None) -> dict[str, Any]:
    error = FleetError(Reason.BAD_REQUEST, message, field=param)
    return {
        "type": "invalid_request_error",
        "code": "invalid_request",
        "message": error.message,
        "param": error.field,
    }


class _Turn:
    """One request, from the endpoint's point of view, and what it answers.

    Attributes:
        has_failed: it was refused, or ended with `response.failed`.
    """

    def __init__(self, body: bytes, send: Send, stream_id: str | None) -> None:
        self._body: bytes | None = body
        self._send = send
        self._stream_id = stream_id
        self._status = 0
        self._buffer = b""
        self.has_failed = False

    async def receive(self) -> Message:
        """The body, and then nothing: a client that leaves cancels the turn."""
        if self._body is None:
            await asyncio.Event().wait()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        """Passes the events on; a refusal becomes one `error` event."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            return
        self._buffer += message.get("body", b"")
        if self._status != 200:  # noqa: PLR2004
            if not message.get("more_body"):
                await self._refuse()
            return
        *events, self._buffer = self._buffer.split(b"\n\n")
        for event in events:
            await self._pass(event)

    async def _pass(self, event: bytes) -> None:
        for line in event.split(b"\n"):
            data = line.removeprefix(b"data: ")
            if data in {line, b"[DONE]"}:
                continue
            if b'"response.failed"' in data[:200]:
                self.has_failed = True
            await _tell(self._send, data, self._stream_id)

    async def _refuse(self) -> None:
        self.has_failed = True
        error: dict[str, Any] = {"message": "The request failed."}
        with contextlib.suppress(msgspec.DecodeError):
            error = msgspec.json.decode(self._buffer, type=dict[str, dict[str, Any]])["error"]
        error["code"] = error.get("code") or error.get("type") or "server_error"
        event = msgspec.json.encode({"type": "error", "status": self._status, "error": error})
        await _tell(self._send, event, self._stream_id)


async def _tell(send: Send, event: bytes, stream_id: str | None) -> None:
    """Sends one event, a JSON object, and says in it which lane it is of."""
    if stream_id is not None:
        event = event[:-1] + b',"stream_id":' + msgspec.json.encode(stream_id) + b"}"
    await send({"type": "websocket.send", "text": event.decode()})


def _http_scope(scope: Scope) -> Scope:
    """The request that a turn is: the connection's own head, without what is the socket's."""
    headers = [
        (name, value)
        for name, value in scope["headers"]
        if name not in _OURS and not name.startswith(b"sec-websocket-")
    ]
    return {
        **scope,
        "type": "http",
        "method": "POST",
        "scheme": "https" if scope["scheme"] == "wss" else "http",
        "headers": [*headers, (b"content-type", b"application/json")],
        "extensions": {},
    }

"""One turn of a Responses WebSocket: the client's message, and the HTTP request that it becomes.

Source: the Open Responses specification, WebSocket mode; OpenAI's OpenAPI document for lanes.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from starlette.types import Message, Scope, Send

from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.common.item_count import count_items
from services.gateway.dialects.common.openai_body import error_object
from services.gateway.dialects.dialect import HeldBytes

# What may be the name of a lane.
_LANE: Final = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_OURS: Final = (b"connection", b"upgrade", b"content-length", b"content-type", b"x-request-id")


@dataclasses.dataclass(frozen=True, slots=True)
class TurnRequest:
    """The request that one message of the client's asks for.

    Attributes:
        body: of the HTTP request, as JSON.
        previous_id: the response that it goes on from.
        stream_id: the lane, which every event of the turn repeats.
        refusal: the `error` object of a message that asks for nothing that can be run.
        status: HTTP's, of the refusal.
        held: what its message holds of the budget of all bodies until the turn runs.
    """

    body: bytes = b""
    previous_id: str | None = None
    stream_id: str | None = None
    refusal: Mapping[str, Any] | None = None
    status: int = 400
    held: HeldBytes | None = None


def read_message(message: bytes, most_items: int) -> TurnRequest:
    """Reads one message; one that is no `response.create` is returned with its refusal.

    So is one that has more items than a body may have, before it is decoded.
    """
    if count_items(message, most_items) >= most_items:
        told = (
            f"The message has more than {most_items} items, which is the most that"
            " gateway.max_body_items allows."
        )
        row = Reason.BODY_TOO_LARGE
        return TurnRequest(refusal=error_object(FleetError(row, told)), status=row.row.http)
    try:
        return _asked(msgspec.json.decode(message, type=dict[str, Any]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return TurnRequest(refusal=_refusal(f"The message is no JSON object: {error}"))


def _asked(body: dict[str, Any]) -> TurnRequest:
    stream_id = body.pop("stream_id", None)
    if stream_id is not None and not (isinstance(stream_id, str) and _LANE.fullmatch(stream_id)):
        told = "stream_id: Expected up to 256 letters, digits, dots, dashes and underscores."
        return TurnRequest(refusal=_refusal(told, "stream_id"))
    kind = body.pop("type", None)
    if kind != "response.create":
        told = f"{kind!r} is no message of this API: response.create is."
        return TurnRequest(stream_id=stream_id, refusal=_refusal(told))
    # how an answer travels is not for the message to say
    for field in ("stream", "stream_options", "background"):
        body.pop(field, None)
    previous_id = body.get("previous_response_id")
    return TurnRequest(
        msgspec.json.encode(body | {"stream": True}),
        previous_id if isinstance(previous_id, str) else None,
        stream_id,
    )


def _refusal(message: str, param: str | None = None) -> dict[str, Any]:
    error = FleetError(Reason.BAD_REQUEST, message, field=param)
    return error_object(error) | {"code": "invalid_request"}


class SocketTurn:
    """One request, from the endpoint's point of view, and what it answers.

    Attributes:
        has_failed: it was refused, or ended with `response.failed`.
    """

    def __init__(self, asked: TurnRequest, send: Send) -> None:
        self._body: bytes | None = asked.body
        self._held = asked.held
        self._send = send
        self._stream_id = asked.stream_id
        self._status = 0
        self._buffer = b""
        self.has_failed = False

    async def receive(self) -> Message:
        """The body, and then nothing: a client that leaves cancels the turn."""
        if self._body is None:
            await asyncio.Event().wait()
        body, self._body = self._body, None
        if self._held is not None:  # who reads it counts it from now on
            self._held.give_back()
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
            await tell(self._send, data, self._stream_id)

    async def _refuse(self) -> None:
        self.has_failed = True
        error: dict[str, Any] = {"message": "The request failed."}
        with contextlib.suppress(msgspec.DecodeError):
            error = msgspec.json.decode(self._buffer, type=dict[str, dict[str, Any]])["error"]
        error["code"] = error.get("code") or error.get("type") or "server_error"
        await tell_error(self._send, error, self._stream_id, status=self._status)


async def tell_error(
    send: Send, error: Mapping[str, Any], stream_id: str | None, *, status: int
) -> None:
    """Sends an `error` event of the lane, with the HTTP status that the same error has there."""
    event = msgspec.json.encode({"type": "error", "status": status, "error": error})
    await tell(send, event, stream_id)


async def tell(send: Send, event: bytes, stream_id: str | None) -> None:
    """Sends one event, a JSON object, and says in it which lane it is of."""
    if stream_id is not None:
        event = event[:-1] + b',"stream_id":' + msgspec.json.encode(stream_id) + b"}"
    await send({"type": "websocket.send", "text": event.decode()})


def http_scope(scope: Scope) -> Scope:
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

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
import functools
import time
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.backplane.process.faults import Faults
from services.backplane.timeouts import timeout
from services.gateway.dialects.common.openai_body import error_object
from services.gateway.dialects.dialect import Budget, HeldBytes
from services.gateway.dialects.openai_responses.store.responses import (
    ConnectionResponses,
    Responses,
)
from services.gateway.dialects.openai_responses.websocket.turn import (
    SocketTurn,
    TurnRequest,
    http_scope,
    read_message,
    tell_error,
)

# Of a message, as the server that takes it has it: what it holds of the budget of all bodies.
HELD: Final = "cortex.held"
_AT_ONCE_BYTES: Final = 128 << 10
# Turns that a client may ask for while one of the same lane runs.
_WAITING: Final = 16
# Lanes of one connection on which turns run at once.
_LANES: Final = 16
_GOING_AWAY: Final = 1001

_TOO_MANY: Final = {
    "type": "invalid_request_error",
    "code": "websocket_stream_limit_reached",
    "message": "This WebSocket connection has reached its stream limit.",
    "param": "stream_id",
}


class ResponsesSocket:
    """An ASGI app for `ws://…/v1/responses`.

    Args:
        store: finds and keeps stored responses.
        make: the HTTP endpoint of one connection, over what that connection keeps.
        idle_seconds: a connection is closed on which nothing has run or come for this long.
        faults: notes what nobody foresaw in a turn, which ends that turn alone.
        budget: what all bodies may have together; turns that wait and responses that are kept for
            their connection are part of it.
        most_items: of one message, `gateway.max_body_items`.
    """

    def __init__(
        self,
        store: Responses,
        make: Callable[[Responses], ASGIApp],
        *,
        idle_seconds: float,
        faults: Faults,
        budget: Budget,
        most_items: int,
    ) -> None:
        self._budget = budget
        self._most_items = most_items
        self._store = store
        self._make = make
        self._idle_seconds = idle_seconds
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection until the client leaves."""
        await receive()
        await send({"type": "websocket.accept"})
        kept = ConnectionResponses(self._store, self._budget)
        connection = _Connection(
            self._make(kept), kept, scope, send, faults=self._faults, most_items=self._most_items
        )
        try:
            while (message := await self._next(connection, receive)) is not None:
                if message["type"] != "websocket.receive":
                    return
                await connection.take(message)
            told = f"Nothing was asked for {self._idle_seconds:g} seconds."
            await send({"type": "websocket.close", "code": _GOING_AWAY, "reason": told})
        finally:
            await connection.close()
            kept.close()

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

    def __init__(
        self,
        app: ASGIApp,
        kept: ConnectionResponses,
        scope: Scope,
        send: Send,
        *,
        faults: Faults,
        most_items: int,
    ) -> None:
        self._most_items = most_items
        self._app = app
        self._kept = kept
        self._scope = http_scope(scope)
        self._send = send
        self._faults = faults
        # By `stream_id`; None is the lane of those that name none. A lane ends with its last turn.
        self._lanes: dict[str | None, asyncio.Queue[TurnRequest]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._quiet_since = time.monotonic()

    def idle_seconds(self) -> float:
        """Seconds since a turn last ran or waited."""
        return 0.0 if self._lanes else time.monotonic() - self._quiet_since

    async def take(self, message: Message) -> None:
        """Queues a turn; does not return while the queue of its lane is full."""
        asked = await self._read(message)
        lane = self._lanes.get(asked.stream_id)
        if lane is None:
            if len(self._lanes) >= _LANES:
                if asked.held is not None:
                    asked.held.give_back()
                await self._refuse(TurnRequest(refusal=_TOO_MANY), asked.stream_id)
                return
            lane = self._lanes[asked.stream_id] = asyncio.Queue(_WAITING)
            task = asyncio.create_task(self._run(asked.stream_id, lane))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        await lane.put(asked)

    async def _read(self, message: Message) -> TurnRequest:
        text = message.pop("text", None)
        data: bytes = text.encode() if text is not None else message.pop("bytes", None) or b""
        del text
        held: HeldBytes | None = message.get(HELD)
        # What is large takes long to decode, and others must not wait for it.
        is_large = len(data) > _AT_ONCE_BYTES
        read = functools.partial(read_message, data, self._most_items)
        asked = await asyncio.to_thread(read) if is_large else read()
        if held is not None and asked.refusal is not None:
            held.give_back()
        return dataclasses.replace(asked, held=held)

    async def close(self) -> None:
        """Ends what runs."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, stream_id: str | None, lane: asyncio.Queue[TurnRequest]) -> None:
        """Runs the turns of one lane until none is left."""
        try:
            # the first has been put in before this task begins
            while not lane.empty():
                asked = lane.get_nowait()
                try:
                    if asked.refusal is None:
                        await self._turn(asked)
                    else:
                        await self._refuse(asked, stream_id)
                except Exception as error:  # noqa: BLE001 - those behind it must not end with it
                    await self._broke(asked, error)
        finally:
            del self._lanes[stream_id]
            self._quiet_since = time.monotonic()

    async def _turn(self, asked: TurnRequest) -> None:
        turn = SocketTurn(asked, self._send)
        await self._app(self._scope, turn.receive, turn.send)
        if turn.has_failed and asked.previous_id is not None:
            self._kept.evict(asked.previous_id)

    async def _broke(self, asked: TurnRequest, error: Exception) -> None:
        """Tells that a turn ended by what nobody foresaw; the socket itself may be what failed."""
        told = self._faults.note("websocket-turn", error)
        if asked.previous_id is not None:
            self._kept.evict(asked.previous_id)
        with contextlib.suppress(Exception):
            await tell_error(
                self._send, error_object(told), asked.stream_id, status=told.reason.row.http
            )

    async def _refuse(self, asked: TurnRequest, stream_id: str | None) -> None:
        assert asked.refusal is not None
        await tell_error(self._send, asked.refusal, stream_id, status=asked.status)

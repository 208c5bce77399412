"""What is changed in Hypercorn's own protocols: no h2c by upgrade, bounds of WebSocket messages."""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final

import h11
from hypercorn.protocol.events import EndBody, Event, Request, Response, StreamClosed
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import FrameTooLargeError, WebsocketBuffer, WSStream
from typing_extensions import override
from wsproto.events import CloseConnection, Message, TextMessage

from services.gateway.http1.budget import BudgetedBytes, ClientBudgets, OverBudgetError

_READ: Final = (b"connection", b"sec-websocket-extensions", b"sec-websocket-protocol")
_BAD_REQUEST: Final = 400
_ABNORMAL: Final = 1006
_POLICY_VIOLATION: Final = 1008


class StockH11(H11Protocol):
    """Hypercorn's codec, but that a request for h2c is answered in HTTP/1.1.

    A proxy that does not know h2c would pass on whatever comes behind such an upgrade, past its own
    rules. HTTP/2 is spoken over TLS, and without it to clients that begin with it.
    """

    async def _check_protocol(self, event: h11.Request) -> None:
        asked = [value for name, value in event.headers if name.lower() == b"upgrade"]
        if not any(value.strip().lower() == b"h2c" for value in asked):
            await super()._check_protocol(event)


# Of a message: what it holds of the budget, for whoever takes it to give back.
HELD: Final = "cortex.held"


class MessageBuffer(WebsocketBuffer):
    """The pieces of one WebSocket message, counted in the budget of all bodies.

    A whole one goes on counting until the app gives its bytes back, or the connection ends.

    Args:
        max_length: characters or bytes of one message.
        shares: has the budget.
    """

    def __init__(self, max_length: int, shares: ClientBudgets) -> None:
        super().__init__(max_length)
        self._shares = shares
        self._pieces: list[str | bytes] = []
        self._is_text = False
        self._whole: list[BudgetedBytes] = []

    @override
    def extend(self, event: Message[Any]) -> None:
        size = _memory(event.data)
        is_too_large = self.length + size > self.max_length
        try:
            self._shares.bodies.take(0 if is_too_large else size)
        except OverBudgetError:
            is_too_large = True
        if is_too_large:
            self.clear()
            raise FrameTooLargeError
        self.length += size
        self._is_text = isinstance(event, TextMessage)
        self._pieces.append(event.data)

    @override
    def clear(self) -> None:
        self._shares.bodies.give_back(self.length)
        self.length = 0
        self._pieces.clear()

    @override
    def to_message(self) -> dict[str, Any]:
        whole: Any = ("" if self._is_text else b"").join(self._pieces)  # type: ignore[arg-type]
        held, self.length = BudgetedBytes(self._shares.bodies, self.length), 0
        self._whole = [each for each in self._whole if not each.is_over] + [held]
        return {
            "type": "websocket.receive",
            HELD: held,
            "bytes": None if self._is_text else whole,
            "text": whole if self._is_text else None,
        }

    def close(self) -> None:
        """Gives back what pieces and whole messages hold: nobody takes them any more."""
        self.clear()
        for each in self._whole:
            each.give_back()
        self._whole.clear()


def _memory(data: str | bytes) -> int:
    """The bytes that a piece takes here; text takes up to four for each character."""
    return sys.getsizeof(data) if isinstance(data, str) and not data.isascii() else len(data)


class SharingWSStream(WSStream):
    """Hypercorn's WebSocket, whose messages share a budget and have to come at a least rate."""

    def __init__(self, app: Any, config: Any, *rest: Any) -> None:
        super().__init__(app, config, *rest)
        shares: ClientBudgets | None = getattr(config, "shares", None)
        self._shares = shares
        self._began_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._messages: MessageBuffer | None = None
        if shares is not None:
            self._messages = MessageBuffer(config.websocket_max_message_size, shares)
            self.buffer = self._messages

    @override
    async def handle(self, event: Event) -> None:
        had_begun, was_closed = self.buffer.length > 0, self.closed
        if isinstance(event, Request) and not _is_ascii(event):
            await self._refuse_handshake()
        else:
            await super().handle(event)
        if self.closed and not (was_closed or isinstance(event, StreamClosed)):
            # refused at its handshake, or for what came before that was answered
            await self.send(StreamClosed(stream_id=self.stream_id))
            if self.app_put is not None:
                await self.app_put({"type": "websocket.disconnect", "code": _ABNORMAL})
        if self.closed or isinstance(event, StreamClosed):
            self._stop()
        elif self.buffer.length == 0:
            self._rest()
        elif not had_begun:
            self._began_at = asyncio.get_running_loop().time()
            self._look()

    async def _refuse_handshake(self) -> None:
        self.closed = True
        headers = [(b"content-length", b"0"), (b"connection", b"close")]
        stream_id = self.stream_id
        await self.send(Response(stream_id=stream_id, status_code=_BAD_REQUEST, headers=headers))
        await self.send(EndBody(stream_id=stream_id))

    def _look(self) -> None:
        """Cuts a client whose message comes too slowly; else looks again when it would be late."""
        if self._shares is None or self.closed:
            return
        loop = asyncio.get_running_loop()
        due = self._began_at + self._shares.pace.seconds(self.buffer.length)
        if due > loop.time():
            self._timer = loop.call_at(due, self._look)
        else:
            self._timer = None
            self.task_group.spawn(self._cut)

    async def _cut(self) -> None:
        told = "The rest of the message did not come in time."
        await self._send_wsproto_event(CloseConnection(code=_POLICY_VIOLATION, reason=told))
        self._stop()
        await self.send(StreamClosed(stream_id=self.stream_id))

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _stop(self) -> None:
        self._rest()
        if self._messages is not None:
            self._messages.close()


def _is_ascii(handshake: Request) -> bool:
    """True if Hypercorn can read what it reads of a handshake."""
    values = [value for name, value in handshake.headers if name.lower() in _READ]
    return all(value.isascii() for value in (handshake.raw_path, *values))

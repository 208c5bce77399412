"""A client's end of a WebSocket for responses."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    RejectConnection,
    Request,
    TextMessage,
)

SECONDS = 60.0


class Socket:
    """A client's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._text = ""

    async def open(self, host: str, *headers: tuple[bytes, bytes]) -> Any:
        request = Request(host=host, target="/v1/responses", extra_headers=list(headers))
        self._writer.write(self._protocol.send(request))
        return await self.event()

    async def turn(self, **asked: Any) -> list[dict[str, Any]]:
        """All events of one turn."""
        await self.say({"type": "response.create", "model": "tiny", **asked})
        return await self.told()

    async def say(self, message: Any) -> None:
        await self.send(json.dumps(message))

    async def send(self, text: str) -> None:
        self._writer.write(self._protocol.send(TextMessage(text)))

    async def piece(self, text: str, *, is_last: bool = False) -> None:
        """A piece of a message."""
        piece = TextMessage(text, message_finished=is_last)
        self._writer.write(self._protocol.send(piece))

    async def told(self) -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        while not events or not _is_last(events[-1]):
            event = await self.event()
            assert isinstance(event, TextMessage), event
            self._text += event.data
            if event.message_finished:
                events.append(json.loads(self._text))
                self._text = ""
        return events

    async def event(self) -> Any:
        while True:
            for event in self._protocol.events():
                if isinstance(
                    event, AcceptConnection | TextMessage | RejectConnection | CloseConnection
                ):
                    return event
                assert not isinstance(event, BytesMessage)
            self._protocol.receive_data(await asyncio.wait_for(self._reader.read(65536), SECONDS))


def _is_last(event: dict[str, Any]) -> bool:
    ends = {"response.completed", "response.incomplete", "response.failed", "error"}
    return event["type"] in ends


@contextlib.asynccontextmanager
async def connected(address: str) -> AsyncIterator[Socket]:
    """A connection to `host:port`, not yet opened."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    socket = Socket(reader, writer)
    try:
        yield socket
    finally:
        writer.close()

"""What is changed in Hypercorn's HTTP/2: no frame of one request ends the others of its connection.

A proxy sends the requests of many clients over one connection, so that an exception there is a
fault for all of them.
"""

from __future__ import annotations

import asyncio
from typing import Final

from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, PriorityUpdated, RequestReceived, StreamReset
from hypercorn.events import Closed, RawData, Updated
from hypercorn.events import Event as SocketEvent
from hypercorn.protocol.h2 import H2Protocol
from typing_extensions import override

# What is read without a pause.
_PIECE_BYTES: Final = 4 << 10
_WANTED: Final = (b":method", b":path")


class StockH2(H2Protocol):
    """Hypercorn's HTTP/2, with a way out for what it does not expect of a client."""

    @override
    async def _handle_events(self, events: list[Event]) -> None:
        # one by one: what an event asks for may have ended with the one before
        for event in events:
            if isinstance(event, DataReceived) and event.stream_id not in self.streams:
                # the rest of a body whose request is answered; all streams share the window
                size = event.flow_controlled_length or 0
                self.connection.acknowledge_received_data(size, event.stream_id)
                await self._flush()
            elif isinstance(event, RequestReceived) and not _is_readable(event):
                self.connection.reset_stream(event.stream_id, ErrorCodes.PROTOCOL_ERROR)
                await self._flush()
            else:
                await super()._handle_events([event])
                if isinstance(event, StreamReset):
                    await self.send(Updated(idle=self.idle))

    @override
    async def handle(self, event: SocketEvent) -> None:
        if isinstance(event, RawData):
            # thousands of frames may come at once, and their senders are not the only clients
            for start in range(0, len(event.data), _PIECE_BYTES):
                piece = event.data[start : start + _PIECE_BYTES]
                await super().handle(RawData(data=piece))
                await asyncio.sleep(0)
            return
        await super().handle(event)
        if isinstance(event, Closed):
            # an answer would wait for its last piece to be sent, and the connection for the answer
            for buffer in self.stream_buffers.values():
                await buffer.close()

    @override
    async def _priority_updated(self, event: PriorityUpdated) -> None:
        """Does nothing: RFC 9113 has done away with priorities, and some end the connection."""


def _is_readable(request: RequestReceived) -> bool:
    """True if Hypercorn can make a request of it."""
    fields = dict(request.headers or ())
    return all(fields.get(name, b"\xff").isascii() for name in _WANTED)

"""The body of a request, between the socket and the app."""

import asyncio
from typing import Any


class RequestBody:
    """The pieces of a body that have arrived and that the app has not taken yet.

    Bound: the connection stops reading the socket above `BODY_HIGH_WATER_BYTES` of
    `pending_bytes`.
    """

    __slots__ = ("_delivered", "_over", "_pieces", "_wake", "complete", "pending_bytes")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._delivered = False
        self._over = False
        self._wake: asyncio.Event | None = None
        self.complete = False
        self.pending_bytes = 0

    def feed(self, data: bytes) -> None:
        """Adds a piece."""
        self._pieces.append(data)
        self.pending_bytes += len(data)
        if self._wake is not None:
            self._wake.set()

    def end(self) -> None:
        """Marks the body complete."""
        self.complete = True
        if self._wake is not None:
            self._wake.set()

    def close(self) -> None:
        """Ends the exchange: the client has left, or the answer is finished."""
        self._over = True
        if self._wake is not None:
            self._wake.set()

    async def next_message(self) -> dict[str, Any]:
        """Returns the next ASGI event: the rest of the body, or `http.disconnect`.

        Waits without a deadline of its own: the connection owns the deadline and closes the
        body when it passes.
        """
        while True:
            if self._over and not self.complete:
                return {"type": "http.disconnect"}
            if self._pieces or (self.complete and not self._delivered):
                return self._take()
            if self._over:
                return {"type": "http.disconnect"}
            if self._wake is None:
                self._wake = asyncio.Event()
            self._wake.clear()
            await self._wake.wait()

    def _take(self) -> dict[str, Any]:
        data = b"".join(self._pieces)
        self._pieces.clear()
        self.pending_bytes = 0
        self._delivered = self.complete
        return {"type": "http.request", "body": data, "more_body": not self.complete}

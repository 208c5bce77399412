"""The writing half of a connection."""

import asyncio

from services.gateway.http1.deadline import Deadline
from services.gateway.http1.limits import Http1Limits


class ConnectionWriter:
    """Writes to a transport at any time, also after it is gone.

    Bound: `Http1Limits.buffered_bytes`; the writer checks `overfull` after each write.
    """

    __slots__ = (
        "_deadline",
        "_lost",
        "_mute",
        "_transport",
        "_writable",
        "closing",
        "limits",
        "loop",
        "write_paused",
    )

    def __init__(
        self, transport: asyncio.Transport, *, deadline: Deadline, limits: Http1Limits
    ) -> None:
        self._transport = transport
        self._deadline = deadline
        self._lost = False
        self._mute = False
        self._writable: asyncio.Event | None = None
        self.limits = limits
        self.loop = asyncio.get_running_loop()
        self.write_paused = False
        self.closing = False

    @property
    def overfull(self) -> bool:
        """True where more than `Http1Limits.buffered_bytes` wait for the client."""
        return self.write_paused and self.buffered() > self.limits.buffered_bytes

    def emit(self, data: bytes) -> None:
        """Writes bytes to the transport. Never raises; drops them when the client is gone."""
        if self._mute:
            return
        try:
            self._transport.write(data)
        except RuntimeError:
            # Behind an end of file, or uvloop's handle is closed and its loss not yet announced.
            self._mute = True

    def buffered(self) -> int:
        """Bytes that the transport still holds."""
        return 0 if self._lost else self._transport.get_write_buffer_size()

    async def writable(self) -> None:
        """Waits until the transport takes more, or is gone. The connection's end wakes it."""
        while self.write_paused:
            if self._writable is None:
                self._writable = asyncio.Event()
            self._writable.clear()
            await self._writable.wait()

    def close(self) -> None:
        """Closes once the buffer is sent; cuts a client that does not take it in time."""
        if not self._lost and not self.closing:
            self.closing = True
            self._deadline.set(self.limits.flush_seconds)
            self._transport.close()

    def linger(self) -> None:
        """Ends our side only, and lets the client finish what it is sending.

        Closing a socket with unread bytes resets it, and a reset may overtake the answer.
        """
        if self._lost or self.closing:
            return
        self.closing = True
        self._deadline.set(self.limits.linger_seconds)
        if self._transport.can_write_eof():
            self._transport.write_eof()

    def abort(self) -> None:
        """Cuts the connection; what is buffered is dropped."""
        if not self._lost:
            self.closing = True
            self._lost = self._mute = True
            self._transport.abort()

    def pause(self) -> None:
        """The transport's buffer is full: nothing more is written for now."""
        self.write_paused = True

    def resume(self) -> None:
        """The transport takes bytes again, or is gone."""
        self.write_paused = False
        if self._writable is not None:
            self._writable.set()

    def lost(self) -> None:
        """The transport is gone."""
        self._lost = self._mute = True
        self.closing = True
        self.resume()

"""Answers written from callbacks: no task is woken and nothing is awaited per token.

A generation's events arrive in the reader task of a neuron's session. The sink that turns
them into server-sent events calls `write` right there, and the bytes reach the socket's
buffer before the call returns. Two implementations keep one contract (and pass one suite):
the exchange of our own HTTP/1.1 codec, found in the scope, and `PumpedResponse` over plain
ASGI for stock h11, HTTP/2 and any other server.

```
response = direct_response(scope, receive, send)   # after the request's body was read
try:
    response.on_close(sink.cancel)
    response.start(200, [(b"content-type", b"text/event-stream")])
    ...                                  # callbacks write(); the last one finish()es
    await sink.ended
finally:
    await response.aclose()
```
"""

from collections.abc import Callable, Iterable
from typing import Protocol, runtime_checkable

import structlog

EXTENSION = "cortex.direct"

log = structlog.get_logger()


@runtime_checkable
class DirectResponse(Protocol):
    """One answer, written by whoever has something to say.

    Not thread-safe: every call comes from the loop's thread. Only `start` raises; what is
    written after the end, after the peer has left, or before `start` is dropped in silence,
    because a sink runs inside a connection that it shares with other requests.

    Nothing here waits, so the writer minds the buffer: above 32 KiB of `buffered()` merge
    instead of writing, and give up a reader who stays there. An answer that reaches
    `Http1Limits.buffered_bytes` is cut: the peer is dropped and `on_close` is called.
    """

    __slots__ = ()

    @property
    def closed(self) -> bool:
        """True once nothing more can be written: finished, cut, or the peer has left."""
        ...

    def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Sets status and headers; they leave together with the first write.

        Args:
            status: 200 to 599.
            headers: lower-case names. Framing is not the caller's business:
                `transfer-encoding` and `connection` are dropped, but `connection: close` is
                obeyed; without `content-length` the body is chunked, or counted where it is
                finished in one go.

        Raises:
            RuntimeError: the answer was started before.
            ValueError: a header that would break the head (a line break in it).
        """
        ...

    def write(self, data: bytes) -> None:
        """Sends a piece of the body. An empty first piece sends the head at once."""
        ...

    def finish(self, tail: bytes = b"") -> None:
        """Sends the last piece and ends the answer; the connection goes on to the next."""
        ...

    def abort(self) -> None:
        """Ends the answer without its end, so that the peer sees that it is not whole."""
        ...

    def buffered(self) -> int:
        """Bytes that were written and that the kernel has not taken yet."""
        ...

    def on_close(self, callback: Callable[[], None]) -> None:
        """Registers what is called once when the peer goes before the answer has ended.

        It is called from the loop, never from inside `write`, and soon when the peer has
        already left. One callback; a later one replaces it. What it raises is logged.
        """
        ...

    def on_drain(self, callback: Callable[[], None]) -> None:
        """Registers what is called each time a full buffer has emptied.

        Full means above 64 KiB, emptied below 16 KiB: the marks of asyncio's transports.
        """
        ...

    async def aclose(self) -> None:
        """Waits until what was finished is handed over; aborts what was not finished.

        The endpoint awaits it last, in a `finally`. Cancelling it cuts the answer.
        """
        ...


def call_back(callback: Callable[[], None]) -> None:
    """Calls a callback of a response; what it raises is logged, and harms no other response."""
    try:
        callback()
    except Exception:
        log.exception("response.callback_failed")

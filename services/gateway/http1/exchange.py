"""One request and its answer."""

from collections.abc import Callable, Iterable
from enum import Enum, auto
from typing import Final, Protocol

import structlog
from starlette.types import Message
from typing_extensions import override

from services.gateway.http1.body import RequestBody
from services.gateway.http1.connection_writer import ConnectionWriter
from services.gateway.http1.direct import DirectResponse, call_back
from services.gateway.http1.head import CONTINUE, DateHeader, encode_head, forbids_body
from services.gateway.http1.reader import RequestHead

log = structlog.get_logger()


class _Phase(Enum):
    """How far the answer has come."""

    WAITING = auto()  # nothing from the app yet
    BEGUN = auto()  # the head is known and held back for the first piece of the body
    OPEN = auto()  # the head is on the wire
    DONE = auto()  # finished, cut, or nobody listens


_WAITING: Final = _Phase.WAITING
_BEGUN: Final = _Phase.BEGUN
_OPEN: Final = _Phase.OPEN
_DONE: Final = _Phase.DONE


class Pipeline(Protocol):
    """What an exchange asks of its connection, besides writing."""

    __slots__ = ()

    def may_continue(self, exchange: "Exchange") -> bool:
        """Whether the connection can stay open behind this exchange."""
        ...

    def body_taken(self) -> None:
        """The app has taken what was pending: reading may go on."""
        ...

    def exchange_finished(self, exchange: "Exchange") -> None:
        """The answer is whole."""
        ...


class Exchange(DirectResponse):
    """One request and its answer; the codec's own `DirectResponse`.

    `send` and the direct methods drive one state machine, so an app may use either. Only
    the exchange at the head of its connection runs; the next one starts when it is done.
    """

    __slots__ = (
        "_bodyless",
        "_chunked",
        "_date",
        "_head_block",
        "_lost",
        "_must_continue",
        "_on_close",
        "_on_drain",
        "_phase",
        "_pipeline",
        "_remaining",
        "_writer",
        "body",
        "head",
        "keep_alive",
    )

    def __init__(
        self, head: RequestHead, *, writer: ConnectionWriter, pipeline: Pipeline, date: DateHeader
    ) -> None:
        self._writer = writer
        self._pipeline = pipeline
        self._date = date
        self._phase = _WAITING
        self._lost = False
        self._head_block = b""
        self._bodyless = False
        self._chunked = False
        self._remaining: int | None = None
        self._must_continue = head.expects_continue
        self._on_close: Callable[[], None] | None = None
        self._on_drain: Callable[[], None] | None = None
        self.body = RequestBody()
        self.head = head
        self.keep_alive = head.keep_alive

    @property
    @override
    def closed(self) -> bool:
        return self._phase is _DONE

    @property
    def path(self) -> str:
        """The path as the client wrote it, for messages."""
        return self.head.target.partition(b"?")[0].decode("ascii", "replace")

    @property
    def answered(self) -> bool:
        """True once a byte of the answer was sent: no other answer can take its place."""
        return self._phase is _OPEN

    async def receive(self) -> Message:
        """Returns the next ASGI event; releases the socket when it takes what was pending."""
        if self._must_continue and self._phase is _WAITING and not self.body.complete:
            self._must_continue = False
            self._writer.emit(CONTINUE)
        message = await self.body.next_message()
        self._pipeline.body_taken()
        return message

    async def send(self, message: Message) -> None:
        """Takes an ASGI event; waits while the transport is full.

        Raises:
            RuntimeError: events out of order.
            ValueError: a header that would break the head.
        """
        kind = message["type"]
        if kind == "http.response.start":
            self.start(message["status"], message.get("headers", ()))
            return
        if kind != "http.response.body":
            raise RuntimeError(f"unexpected ASGI event {kind!r}")
        if self._phase is _WAITING:
            raise RuntimeError("http.response.body before http.response.start")
        if message.get("more_body", False):
            self.write(message.get("body", b""))
            if self._writer.write_paused:
                await self._writer.writable()
        else:
            self.finish(message.get("body", b""))

    # The direct side.

    @override
    def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        if self._phase is _DONE:
            return
        if self._phase is not _WAITING:
            raise RuntimeError("the response was started before")
        encoded = encode_head(status, headers, self._date.line())
        self._head_block = encoded.block
        self._bodyless = forbids_body(self.head.method, status)
        self._remaining = encoded.content_length
        self.keep_alive = self.keep_alive and not encoded.close
        self._phase = _BEGUN

    @override
    def write(self, data: bytes) -> None:
        if self._phase is _OPEN:
            if self._chunked:
                if data:
                    self._writer.emit(b"%x\r\n%b\r\n" % (len(data), data))
            elif not self._bodyless:
                self._write_counted(data)
        elif self._phase is _BEGUN:
            self._open(data)
        if self._writer.write_paused and self._writer.overfull:
            self._writer.abort()
            self.disconnected()

    @override
    def finish(self, tail: bytes = b"") -> None:
        if self._phase is _BEGUN:
            self._emit_whole(tail)
        elif self._phase is not _OPEN:
            return
        elif self._chunked:
            framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(tail), tail) if tail else b"0\r\n\r\n"
            self._writer.emit(framed)
        elif not self._bodyless:
            self._write_counted(tail)
        if self.closed:
            return
        self._phase = _DONE
        # A body shorter than it was declared: only the end of the connection can tell.
        self.keep_alive = self.keep_alive and (self._bodyless or not self._remaining)
        self.body.close()
        self._pipeline.exchange_finished(self)

    @override
    def abort(self) -> None:
        if self._phase is not _DONE:
            self._on_close = None
            self.withdraw()
            self._writer.close()

    @override
    def buffered(self) -> int:
        return self._writer.buffered() if self._phase is not _DONE else 0

    @override
    def on_close(self, callback: Callable[[], None]) -> None:
        self._on_close = callback
        if self._lost:
            self._writer.loop.call_soon(self._tell_closed)

    @override
    def on_drain(self, callback: Callable[[], None]) -> None:
        self._on_drain = callback

    @override
    async def aclose(self) -> None:
        """Aborts what was not finished; the rest is already in the transport's buffer."""
        self.abort()

    # The connection's side.

    def disconnected(self) -> None:
        """Ends the exchange because the client has left or was cut off."""
        if self._phase is not _DONE:
            self._lost = True
            self.withdraw()
            self._writer.loop.call_soon(self._tell_closed)

    def withdraw(self) -> None:
        """Ends the exchange without an answer of its own."""
        self._phase = _DONE
        self.body.close()

    def drained(self) -> None:
        """Tells the app that the transport takes more again."""
        if self._on_drain is not None and self._phase is not _DONE:
            call_back(self._on_drain)

    def _tell_closed(self) -> None:
        callback, self._on_close = self._on_close, None
        if callback is not None:
            call_back(callback)

    def _open(self, data: bytes) -> None:
        head = self._framed_head(None)
        self._phase = _OPEN
        if self._chunked and data:
            self._writer.emit(b"%b\r\n%x\r\n%b\r\n" % (head, len(data), data))
            return
        self._writer.emit(head + b"\r\n")
        if not self._chunked and not self._bodyless:
            self._write_counted(data)

    def _emit_whole(self, data: bytes) -> None:
        head = self._framed_head(len(data))
        self._phase = _OPEN
        if self._bodyless:
            self._writer.emit(head + b"\r\n")
        elif self._remaining is not None and len(data) > self._remaining:
            self._overrun()
        else:
            self._writer.emit(b"%b\r\n%b" % (head, data))
            self._remaining = 0 if self._remaining is None else self._remaining - len(data)

    def _framed_head(self, whole_size: int | None) -> bytes:
        """Adds framing to the head: by the declared length, else counted, chunked or by close."""
        framing = b""
        if self._remaining is None and not self._has_no_length():
            if whole_size is not None:
                framing = b"content-length: %d\r\n" % whole_size
            elif self.head.http_version == "1.1":
                framing = b"transfer-encoding: chunked\r\n"
                self._chunked = not self._bodyless
            else:
                self.keep_alive = False
        self.keep_alive = self.keep_alive and self._pipeline.may_continue(self)
        if not self.keep_alive:
            framing += b"connection: close\r\n"
        elif self.head.http_version == "1.0":
            framing += b"connection: keep-alive\r\n"
        return self._head_block + framing

    def _has_no_length(self) -> bool:
        return self._bodyless and self.head.method != "HEAD"

    def _write_counted(self, data: bytes) -> None:
        if self._remaining is not None:
            if len(data) > self._remaining:
                self._overrun()
                return
            self._remaining -= len(data)
        if data:
            self._writer.emit(data)

    def _overrun(self) -> None:
        log.error("response.longer_than_declared", path=self.path)
        self.abort()

"""One bidirectional gRPC call on a connection of its own, read through callbacks.

grpc.aio wakes a thread, a socket pair, a future and a task for every message, about 50 us, which is
most of what a single token costs on a session. Here a message is passed to its sink within the
socket's own callback, and a message that is sent is written to the socket before `send` returns.
With one call per connection nothing of HTTP/2 has to be multiplexed.

Sources: RFC 9113; gRPC over HTTP/2 (doc/PROTOCOL-HTTP2.md in grpc/grpc).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, Protocol, cast

from cryptography import x509
from hpack import Decoder, Encoder, HPACKError

from services.backplane.errors import FleetError
from services.backplane.process.faults import Faults
from services.backplane.rpc.channels import MAX_MESSAGE_BYTES
from services.backplane.security.certificates import serial_of
from services.backplane.security.credentials import FleetCredentials
from services.gateway.transports import http2
from services.gateway.transports.grpc_status import end_of_call, lost
from services.gateway.transports.http2 import Frame, FrameReader, ProtocolError, frame
from services.gateway.transports.keepalive import Keepalive

_RECHECK_SECONDS: Final = 1.0
# How far the peer may run ahead of us; given back by halves.
_WINDOW_BYTES: Final = 8 << 20
_STREAM: Final = 1
_PREFIX_BYTES: Final = 5
_PING: Final = frame(http2.PING, 0, 0, b"cortex\0\0")
_HELLO: Final = (
    http2.PREFACE
    + http2.settings(
        {
            http2.ENABLE_PUSH: 0,
            http2.INITIAL_WINDOW_SIZE: _WINDOW_BYTES,
            http2.MAX_FRAME_SIZE: http2.MAX_FRAME_BYTES,
        }
    )
    + frame(
        http2.WINDOW_UPDATE, 0, 0, (_WINDOW_BYTES - http2.DEFAULT_WINDOW_BYTES).to_bytes(4, "big")
    )
)


class CallSink(Protocol):
    """Takes the messages and the end of a call, called back on the event loop. Must not raise."""

    __slots__ = ()

    def message(self, data: bytes) -> None:
        """One message of the peer."""
        ...

    def caught_up(self) -> None:
        """Called after a batch of messages was passed on, when no more has arrived."""
        ...

    def writable(self) -> None:
        """Everything sent has left: more may be sent."""
        ...

    def ended(self, error: FleetError | None) -> None:
        """The call is over; None: the peer ended it with status OK. Comes once."""
        ...


class BidiCall(asyncio.Protocol):
    """One call and its connection; made by `open_call` in transports/connect.py."""

    def __init__(
        self,
        path: str,
        authority: str,
        sink: CallSink,
        faults: Faults,
        credentials: FleetCredentials | None = None,
    ) -> None:
        self._credentials = credentials
        self._serial = ""
        self._trusting: asyncio.TimerHandle | None = None
        self._faults = faults
        self._path = path
        self._authority = authority
        self._sink = sink
        self._transport: asyncio.Transport | None = None
        self._frames = FrameReader()
        self._decoder = Decoder()
        self._headers: dict[str, str] = {}
        self._inbox = bytearray()
        self._outbox = bytearray()
        self._is_paused = False
        self._stream_window = self._connection_window = http2.DEFAULT_WINDOW_BYTES
        self._initial_window = http2.DEFAULT_WINDOW_BYTES
        self._frame_bytes = http2.DEFAULT_FRAME_BYTES
        self._unreturned = 0
        self._has_news = False
        self._keepalive = Keepalive(
            ping=lambda: self._write(_PING),
            give_up=lambda: self._end(lost("The neuron does not answer.")),
        )
        self._is_over = False

    @property
    def is_writable(self) -> bool:
        """False while something that was sent waits for the peer or for the socket."""
        return not (self._outbox or self._is_paused or self._is_over)

    def send(self, message: bytes) -> None:
        """Sends one message, as much of it as the peer takes now."""
        self._outbox += b"\0" + len(message).to_bytes(4, "big") + message
        self._pump()

    def cancel(self) -> None:
        """Ends the call from this side; the sink is not called again."""
        if not self._is_over:
            self._write(frame(http2.RST_STREAM, 0, _STREAM, http2.CANCEL.to_bytes(4, "big")))
            self._has_news = False
            self._close(at_once=self._is_paused)

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greets and opens the stream; the peer's settings need not be waited for."""
        self._transport = cast("asyncio.Transport", transport)
        headers = [
            (":method", "POST"),
            (":scheme", "https" if transport.get_extra_info("sslcontext") else "http"),
            (":path", self._path),
            (":authority", self._authority),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("user-agent", "cortex-gateway"),
        ]
        block = Encoder().encode(headers, huffman=False)
        self._write(_HELLO + frame(http2.HEADERS, http2.END_HEADERS, _STREAM, block))
        self._keepalive.start()
        if (socket := transport.get_extra_info("ssl_object")) is not None:
            shown = socket.getpeercert(binary_form=True)
            self._serial = serial_of(x509.load_der_x509_certificate(shown))
            self._recheck()

    def _recheck(self) -> None:
        """Ends the call within a second of its neuron's certificate being revoked."""
        if self._credentials is None or self._is_over:
            return
        if self._serial in self._credentials.revoked:
            self._end(lost("The neuron's certificate was revoked."))
            return
        loop = asyncio.get_running_loop()
        self._trusting = loop.call_later(_RECHECK_SECONDS, self._recheck)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and the call with it."""
        self._end(lost(f"The connection to the neuron was lost{f': {exc}' if exc else ''}."))

    def pause_writing(self) -> None:
        """The socket's buffer is full."""
        self._is_paused = True

    def resume_writing(self) -> None:
        """The write buffer has room again: sends what waits."""
        self._is_paused = False
        self._pump()
        self._tell_writable()

    def data_received(self, data: bytes) -> None:
        """Takes whatever came."""
        self._keepalive.heard = True
        was_writable = self.is_writable
        try:
            for one in self._frames.feed(data):
                self._take(one)
        except (ProtocolError, HPACKError) as broken:
            self._end(lost(f"The neuron broke the protocol: {broken}."))
        except Exception as error:  # noqa: BLE001 - the loop would drop the connection unsaid
            self._faults.note("neuron-session", error)
            self._end(lost("What the neuron sent could not be read; the gateway's log says why."))
        if self._has_news:
            self._has_news = False
            self._sink.caught_up()
        if not was_writable:
            self._tell_writable()

    # Frames.

    def _take(self, one: Frame) -> None:
        kind, flags = one.kind, one.flags
        if self._is_over:
            return
        if kind == http2.DATA:
            self._take_data(one.payload, is_last=bool(flags & http2.END_STREAM))
        elif kind == http2.HEADERS:
            self._headers.update(cast("Mapping[str, str]", dict(self._decoder.decode(one.payload))))
            if flags & http2.END_STREAM:
                self._end(end_of_call(self._headers))
        elif kind == http2.WINDOW_UPDATE:
            self._widen(one.stream_id, http2.number(one.payload))
        elif kind == http2.SETTINGS and not flags & http2.ACK:
            self._configure(http2.read_settings(one.payload))
        elif kind == http2.PING and not flags & http2.ACK:
            self._write(frame(http2.PING, http2.ACK, 0, one.payload))
        elif kind == http2.RST_STREAM:
            self._end(lost(f"The neuron reset its session (code {http2.number(one.payload)})."))
        elif kind == http2.GOAWAY and http2.number(one.payload) < _STREAM:
            self._end(lost("The neuron takes no session now."))

    def _take_data(self, payload: bytes, *, is_last: bool) -> None:
        self._give_back(len(payload))
        inbox = self._inbox
        inbox += payload
        while len(inbox) >= _PREFIX_BYTES:
            size = int.from_bytes(inbox[1:_PREFIX_BYTES], "big")
            if inbox[0] or size > MAX_MESSAGE_BYTES:
                raise ProtocolError("a message that is compressed or too large")
            end = _PREFIX_BYTES + size
            if len(inbox) < end:
                break
            message = bytes(inbox[_PREFIX_BYTES:end])
            del inbox[:end]
            self._has_news = True
            self._sink.message(message)
        if is_last:
            self._end(lost("The neuron ended its session without a status."))

    def _give_back(self, size: int) -> None:
        """Lets the peer send as much again as has been taken."""
        self._unreturned += size
        if self._unreturned > _WINDOW_BYTES // 2:
            more = self._unreturned.to_bytes(4, "big")
            self._unreturned = 0
            self._write(
                frame(http2.WINDOW_UPDATE, 0, 0, more)
                + frame(http2.WINDOW_UPDATE, 0, _STREAM, more)
            )

    def _widen(self, stream_id: int, more: int) -> None:
        if stream_id:
            self._stream_window += more
        else:
            self._connection_window += more
        self._pump()

    def _configure(self, values: Mapping[int, int]) -> None:
        window = values.get(http2.INITIAL_WINDOW_SIZE, self._initial_window)
        self._stream_window += window - self._initial_window
        self._initial_window = window
        self._frame_bytes = values.get(http2.MAX_FRAME_SIZE, self._frame_bytes)
        self._write(frame(http2.SETTINGS, http2.ACK, 0))
        self._pump()

    def _pump(self) -> None:
        """Sends what waits, as far as the windows allow."""
        outbox = self._outbox
        while outbox and not self._is_paused:
            window = min(self._stream_window, self._connection_window)
            size = min(len(outbox), window, self._frame_bytes)
            if size <= 0:
                return
            self._write(frame(http2.DATA, 0, _STREAM, bytes(outbox[:size])))
            del outbox[:size]
            self._stream_window -= size
            self._connection_window -= size

    # Ends.

    def _tell_writable(self) -> None:
        if self.is_writable:
            self._sink.writable()

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _end(self, error: FleetError | None) -> None:
        if not self._is_over:
            self._close(at_once=True)
            if self._has_news:
                self._has_news = False
                self._sink.caught_up()
            self._sink.ended(error)

    def _close(self, *, at_once: bool) -> None:
        self._is_over = True
        self._keepalive.stop()
        if self._trusting is not None:
            self._trusting.cancel()
        if self._transport is not None:
            self._transport.abort() if at_once else self._transport.close()

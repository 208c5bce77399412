"""One HTTP/1.1 connection: parses requests, queues them, answers in order, closes."""

import asyncio
from collections import deque
from collections.abc import Callable

from typing_extensions import override

from services.gateway.http1.connection_writer import ConnectionWriter
from services.gateway.http1.deadline import Deadline
from services.gateway.http1.exchange import Exchange, Pipeline
from services.gateway.http1.limits import BODY_HIGH_WATER_BYTES, SLICE_BYTES, Refused
from services.gateway.http1.reader import RequestHead, RequestReader, RequestSink, Upgrade
from services.gateway.http1.settings import Http1Settings

_H2_PREFACE = b"PRI * HTTP/2.0\r\n\r\n"


class Connection(asyncio.Protocol, Pipeline, RequestSink):
    """A client, from its first byte to its last.

    Requests are parsed as they come and answered one at a time: the active exchange has an
    app running, those in the queue wait for it. Reading stops while the queue is full or
    while the app has not taken a body's pieces. A refusal waits its turn behind the answers
    that were asked for earlier, and ends the connection.
    """

    def __init__(
        self,
        *,
        settings: Http1Settings,
        transport: asyncio.Transport,
        run_app: Callable[[Exchange], None],
        hand_over: Callable[[bytes], None],
        on_lost: Callable[[], None],
    ) -> None:
        """Prepares for a transport, whose protocol the caller makes it.

        `run_app` starts the app for an exchange, `hand_over` lets another protocol go on from
        these bytes, `on_lost` is called when the connection has ended.
        """
        self._settings = settings
        self._limits = settings.limits
        self._transport = transport
        self._run_app = run_app
        self._hand_over = hand_over
        self._on_lost = on_lost
        self._deadline = Deadline(asyncio.get_running_loop(), self._overdue)
        self.writer = ConnectionWriter(transport, deadline=self._deadline, limits=self._limits)
        self._reader = RequestReader(self, self._limits)
        self._active: Exchange | None = None
        self._newest: Exchange | None = None
        self._queue: deque[Exchange] = deque()
        self._served = 0
        self._held = b""
        self._refusal: Refused | None = None
        self._turnover: bytes | None = None
        self._reading_paused = False
        self._head_is_timed = False
        self._draining = False
        self._rearm()

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes from the client."""
        if self.writer.closing or self._refusal is not None:
            return
        if self._turnover is not None:
            self._turnover += data
        elif self._held:
            self._held += data
        else:
            self._feed(data)

    def eof_received(self) -> None:
        """asyncio: the client has ended its side, which is how a client leaves."""
        self._leave()
        self.writer.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the transport is gone."""
        self._deadline.cancel()
        self.writer.lost()
        self._leave()
        self._on_lost()

    def pause_writing(self) -> None:
        """asyncio: the write buffer is full."""
        self.writer.pause()

    def resume_writing(self) -> None:
        """asyncio: the write buffer has emptied."""
        self.writer.resume()
        if self._active is not None:
            self._active.drained()

    @override
    def request_begun(self, head: RequestHead) -> None:
        """A head is complete: starts the app, or queues behind the exchange that runs."""
        self._served += 1
        self._head_is_timed = False
        exchange = Exchange(head, writer=self.writer, pipeline=self, date=self._settings.date)
        self._newest = exchange
        if self._active is None:
            self._start(exchange)
        else:
            self._queue.append(exchange)

    @override
    def body_received(self, data: bytes) -> None:
        """A piece of the newest exchange's body."""
        if self._newest is not None:
            self._newest.body.feed(data)

    @override
    def request_ended(self) -> None:
        """The newest exchange's body is whole."""
        if self._newest is not None:
            self._newest.body.end()

    @override
    def may_continue(self, exchange: Exchange) -> bool:
        whole = exchange.body.complete
        return whole and not self._draining and self._served < self._limits.keep_alive_requests

    @override
    def body_taken(self) -> None:
        if self._reading_paused:
            self._go_on_reading()

    @override
    def exchange_finished(self, exchange: Exchange) -> None:
        self._active = None
        if not exchange.body.complete:
            self._linger()
        elif not exchange.keep_alive or self._draining:
            self.writer.close()
        elif self._queue:
            self._start(self._queue.popleft())
            self._go_on_reading()
        elif self._refusal is not None:
            self._answer_refusal(self._refusal)
        elif self._turnover is not None:
            self._turn_over(self._turnover)
        else:
            self._go_on_reading()

    def app_returned(self, exchange: Exchange) -> None:
        """The app's task has ended: answers 500 where it has not answered."""
        if exchange.closed:
            return
        if exchange.answered:
            exchange.abort()
            return
        self.answer_instead(exchange, Refused(500, "the server failed to answer"))

    def answer_instead(self, exchange: Exchange, refused: Refused) -> None:
        """Answers with a refusal in place of an app whose answer has not begun."""
        exchange.withdraw()
        self._active = None
        self._refusal = refused
        self._answer_refusal(refused)

    def drain(self) -> None:
        """Finishes the exchange that runs, and closes; an idle connection closes now."""
        self._draining = True
        self._queue.clear()
        if self._active is None and self._refusal is None:
            self.writer.close()

    def _start(self, exchange: Exchange) -> None:
        self._active = exchange
        self._run_app(exchange)

    def _feed(self, data: bytes) -> None:
        size, start = len(data), 0
        try:
            while start < size and len(self._queue) < self._limits.pipelined_requests:
                portion = data if size <= SLICE_BYTES else data[start : start + SLICE_BYTES]
                self._reader.feed(portion)
                start += len(portion)
        except Upgrade as upgrade:
            self._turn_over(upgrade.head + data[start + upgrade.consumed :])
            return
        except Refused as refused:
            if self._newest is None and data.startswith(_H2_PREFACE):
                self._turn_over(data)
            else:
                self._refuse(refused)
            return
        if start < size:
            self._held = data[start:]
        self._pace()
        self._rearm()

    def _go_on_reading(self) -> None:
        held, self._held = self._held, b""
        if held:
            self._feed(held)
        else:
            self._pace()
            self._rearm()

    def _pace(self) -> None:
        """Stops and resumes reading, by what waits for the app."""
        newest = self._newest
        pause = (
            bool(self._held)
            or len(self._queue) >= self._limits.pipelined_requests
            or (newest is not None and newest.body.pending_bytes > BODY_HIGH_WATER_BYTES)
        )
        if self.writer.closing or pause is self._reading_paused:
            return
        if pause:
            self._stop_reading()
        else:
            self._reading_paused = False
            self._transport.resume_reading()

    def _stop_reading(self) -> None:
        if not self._reading_paused and not self.writer.closing:
            self._reading_paused = True
            self._transport.pause_reading()

    def _rearm(self) -> None:
        """Sets the deadline that fits what the connection waits for."""
        limits = self._limits
        if self.writer.closing:
            return
        if self._newest is not None and not self._newest.body.complete:
            if self._reading_paused:
                self._deadline.clear()
            else:
                self._deadline.set(limits.body_idle_seconds)
        elif self._active is not None:
            self._deadline.clear()
        elif not self._reader.in_head:
            self._deadline.set(limits.keep_alive_seconds)
        elif not self._head_is_timed:
            # Once per head: a client that trickles bytes does not win time with them.
            self._head_is_timed = True
            self._deadline.set(limits.head_seconds)

    def _overdue(self) -> None:
        if self.writer.closing:
            self.writer.abort()
        elif self._newest is not None and not self._newest.body.complete:
            self._refuse(Refused(408, "the rest of the body did not come in time"))
        elif self._reader.in_head:
            self._refuse(Refused(408, "the rest of the headers did not come in time"))
        else:
            self.writer.close()

    def _refuse(self, refused: Refused) -> None:
        """Answers in the place of the newest request, behind those asked for earlier."""
        self._refusal = refused
        newest = self._newest
        if newest is not None and not newest.body.complete:
            if newest is self._active:
                self._active = None
                cannot_say_why = newest.answered
                newest.disconnected()
                if cannot_say_why:
                    self.writer.close()
                    return
            elif newest in self._queue:
                self._queue.remove(newest)
        if self._active is None:
            self._answer_refusal(refused)

    def _answer_refusal(self, refused: Refused) -> None:
        self.writer.emit(self._settings.refusal(refused, self._reader.asked))
        self._linger()

    def _linger(self) -> None:
        if self._reading_paused and not self.writer.closing:
            self._reading_paused = False
            self._transport.resume_reading()
        self._held = b""
        self.writer.linger()

    def _turn_over(self, data: bytes) -> None:
        """Hands the connection over once the exchanges before are finished."""
        self._turnover = data
        if self._active is not None:
            self._stop_reading()
            return
        self._deadline.cancel()
        if self._reading_paused:
            self._transport.resume_reading()
        self._hand_over(data)

    def _leave(self) -> None:
        active, self._active = self._active, None
        self._queue.clear()
        if active is not None:
            active.disconnected()

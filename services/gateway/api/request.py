"""One request: what is known of it, and what ends it while it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from typing_extensions import override

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason
from services.gateway.api.body import IncomingBody
from services.gateway.auth.auth import Auth
from services.gateway.auth.holder import ANYBODY
from services.gateway.limits.account import Account
from services.gateway.limits.reservation import Reservation
from services.gateway.routing.retry import ServedBy
from services.gateway.settings import GatewaySettings
from services.gateway.streaming.choice import ChoiceSink
from services.gateway.streaming.stream import ResponseStream
from services.gateway.streaming.ticker import Ticker, Watched
from services.gateway.telemetry.request_trace import UNTRACED, RequestTrace

# What a template may add to a prompt, in bytes, generously.
_TEMPLATE_BYTES: Final = 512
# The longest that a client sees nothing at all while its prompt is being counted.
_COUNTING_SECONDS: Final = 30.0


class RequestRecord:
    """What is known of one request; filled in while it runs, written once at its end."""

    __slots__ = (
        "account",
        "client_gone",
        "dialect",
        "embedded_tokens",
        "ended_at",
        "ended_unix",
        "error",
        "holder",
        "name",
        "principal",
        "request_id",
        "reservation",
        "served_by",
        "sinks",
        "started_at",
        "status",
        "stream",
    )

    def __init__(self, dialect: str, request_id: str, trace: RequestTrace = UNTRACED) -> None:
        self.dialect = dialect
        self.request_id = request_id
        self.started_at = time.monotonic()
        self.ended_at = self.ended_unix = 0.0
        self.name = ""
        self.stream = False
        self.status = 0
        self.error: FleetError | None = None
        self.client_gone = False
        self.principal = ""
        self.holder = ANYBODY
        self.served_by = ServedBy(trace)
        self.sinks: Sequence[ChoiceSink] = ()
        self.account: Account | None = None
        self.reservation: Reservation | None = None
        self.embedded_tokens = 0

    @property
    def reason(self) -> Reason | None:
        """Why it failed; None where it did not."""
        if self.client_gone:
            return Reason.CANCELLED
        return None if self.error is None else self.error.reason


class RequestScope(Watched):
    """One request while it runs: ends it early where it has to, and is checked by the ticker.

    Attributes:
        body: how it is read, and what it holds of the budget; None where there is none to read.
        record: what its log line will tell.
        requests: the generations of a streamed answer.
        stream: where it is written; None where the answer is not streamed.
        is_unread: its body has not come whole.
        is_over: nothing can end it any more.
        ended_by: why it was ended early; None where it was not.
    """

    __slots__ = (
        "_longest",
        "_settings",
        "_task",
        "body",
        "ended_by",
        "is_over",
        "is_unread",
        "record",
        "requests",
        "stream",
    )

    def __init__(
        self, settings: GatewaySettings, record: RequestRecord, body: IncomingBody | None = None
    ) -> None:
        self._settings = settings
        self._task = asyncio.current_task()
        self.body = body
        self.record = record
        self.requests: Sequence[generation.GenerateRequest] = ()
        self.stream: ResponseStream | None = None
        self._longest: int | None = None
        self.is_unread = True
        self.is_over = False
        self.ended_by: FleetError | None = None

    def begin_stream(
        self, stream: ResponseStream, requests: Sequence[generation.GenerateRequest]
    ) -> None:
        """Lets the ticker watch a streamed answer: keep-alives, and an end when it must."""
        self.stream = stream
        self.requests = requests

    def close(self) -> None:
        """Ends the ticker's watch: the request is over."""
        self.is_over = True
        if self.body is not None:
            self.body.release()
        if self.stream is not None:
            self.stream.close()
            self.stream = None

    def leave(self) -> None:
        """Ends the request because its client has left."""
        if not self.is_over:
            self.record.client_gone = True
            self.end(FleetError(Reason.CANCELLED, "The client has gone."))

    @override
    def end(self, error: FleetError) -> None:
        """Cancels the task of the request; `ended_by` is why."""
        if not self.is_over and self.ended_by is None and self._task is not None:
            self.ended_by = error
            self._task.cancel()

    def uncancel(self) -> None:
        """Takes the cancellation by `end` back, so that the task can answer with the error."""
        assert self._task is not None
        self._task.uncancel()

    @override
    def tick(self, now: float, slack: float) -> None:
        if self.is_unread and self.body is not None and self.body.is_late(now):
            told = "The rest of the body did not come in time (gateway.body_bytes_per_second)."
            self.end(FleetError(Reason.BODY_TOO_SLOW, told))
        for sink in self.record.sinks:
            sink.check_silence(
                now,
                first_event_seconds=self._settings.first_event_seconds,
                idle_seconds=self._settings.idle_seconds,
            )
        if self.stream is not None and not self._may_be_refused(self.stream, now):
            self.stream.tick(now, slack)

    def _may_be_refused(self, stream: ResponseStream, now: float) -> bool:
        """True while the neuron is still counting a prompt that may be too long for it.

        A refusal is an HTTP error, which clients act on, as long as no head has gone out: a
        keep-alive would make it the end of a stream. Most prompts need not wait for that, because
        a token is at least one byte.
        """
        target = self.record.served_by.last
        if stream.is_committed or target is None or any(sink.is_heard for sink in stream.sinks):
            return False
        since = [one for sink in stream.sinks if (one := sink.unanswered_since) is not None]
        if not since or now - min(since) > _COUNTING_SECONDS:
            return False
        if self._longest is None:  # which costs as much as writing it
            self._longest = max(request.ByteSize() for request in self.requests)
        return self._longest + _TEMPLATE_BYTES > target.max_context_tokens


def end_lost(ticker: Ticker, auth: Auth) -> None:
    """Ends the requests that run by keys that were revoked."""
    error = FleetError(Reason.UNAUTHENTICATED, "The API key was taken back.")
    for one in ticker.watched():
        if isinstance(one, RequestScope) and auth.has_lost(one.record.holder):
            one.end(error)


def running(ticker: Ticker) -> list[RequestRecord]:
    """The records of all requests under way."""
    return [one.record for one in ticker.watched() if isinstance(one, RequestScope)]


def under_way(
    ticker: Ticker, model_named: Callable[[str], str | None]
) -> dict[str, tuple[int, int]]:
    """By model: how many generations run on neurons, and how many wait in their queues.

    Args:
        ticker: watches the requests.
        model_named: the own name of the model behind a name or alias; None where nobody knows it.
    """
    found: dict[str, tuple[int, int]] = {}
    for record in running(ticker):
        served = record.served_by.last
        model = model_named(record.name) if served is None else served.model
        open_sinks = [sink for sink in record.sinks if sink.finished_event is None]
        if model is None or not open_sinks:
            continue
        admitted = sum(sink.started_event is not None for sink in open_sinks)
        runs, waits = found.get(model, (0, 0))
        found[model] = runs + admitted, waits + len(open_sinks) - admitted
    return found

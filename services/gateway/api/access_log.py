"""The access log: one line per request at its end, and its metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, Protocol

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason
from services.backplane.excerpt import excerpt
from services.backplane.process.faults import Faults
from services.gateway.auth.holder import ANYBODY
from services.gateway.limits.account import Account
from services.gateway.limits.device_costs import DeviceCosts, measured
from services.gateway.limits.reservation import Reservation
from services.gateway.limits.usage import UsageCounts, Used
from services.gateway.routing.retry import ServedBy
from services.gateway.streaming.choice import ChoiceSink
from services.gateway.telemetry.metrics import GatewayMetrics
from services.gateway.telemetry.outcome import UNKNOWN_MODEL, RequestOutcome
from services.gateway.telemetry.request_log import RequestLine, RequestLog
from services.gateway.telemetry.request_trace import UNTRACED, RequestTrace

CLIENT_GONE_STATUS: Final = 499
# A catalogue's own names have at most 256 characters.
_MOST_NAME_BYTES: Final = 256
# Requests that wait to be settled; their answers are kept as long.
_MOST_ENDED: Final = 64
_SHORT_NAME: Final = _MOST_NAME_BYTES // 4  # characters, which are four bytes at most
_FINISH_WORDS: Final = MappingProxyType(
    {
        value: name.removeprefix("FINISH_REASON_").lower()
        for name, value in generation.FinishReason.items()
    }
)


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


class RequestListener(Protocol):
    """Takes every request when it has ended: the console, for one."""

    def ended(self, record: RequestRecord, outcome: RequestOutcome, line: RequestLine) -> None:
        """One request has ended.

        Args:
            record: of the request; not to be kept.
            outcome: what is counted of it; not to be kept.
            line: what is logged of it; not to be changed.
        """
        ...


class AccessLog:
    """Writes the line of each request, and counts it, many at a time.

    One by one they would cost half as much again: the code that does it has left the processor's
    caches when the next request ends. So those that went well wait for `settle`, which is called
    several times a second; no more than `_MOST_ENDED` of them.

    Args:
        metrics: where it is counted.
        log: where the line goes.
        model_named: the own name of the model behind a name or alias; None where nobody knows it.
        usage: counts what was used.
        device_costs: learns what answers take of the devices.
        faults: notes what nobody foresaw.
        listener: is told of every request.
    """

    def __init__(
        self,
        metrics: GatewayMetrics,
        log: RequestLog,
        model_named: Callable[[str], str | None],
        *,
        usage: UsageCounts,
        device_costs: DeviceCosts,
        faults: Faults,
        listener: RequestListener,
    ) -> None:
        self._usage = usage
        self._device_costs = device_costs
        self._faults = faults
        self._metrics = metrics
        self._log = log
        self._model_named = model_named
        self._listener = listener
        self._ended: list[RequestRecord] = []

    def use(self, log: RequestLog) -> None:
        """Writes log lines to another logger from now on, after a reload of the settings."""
        self.settle()
        self._log.drain()
        self._log = log

    def write(self, record: RequestRecord) -> None:
        """Takes in a request at its end, and settles what it has reserved."""
        if record.reservation is not None:
            self._settle_reservation(record, record.reservation)
        record.ended_at, record.ended_unix = time.monotonic(), time.time()
        self._ended.append(record)
        if record.error is not None or len(self._ended) >= _MOST_ENDED:
            self.settle()

    def _settle_reservation(self, record: RequestRecord, reservation: Reservation) -> None:
        if not reservation.counts_devices:
            reservation.settle(_used(record).tokens)
            return
        finished = [sink.finished_event for sink in record.sinks]
        reservation.settle(_used(record).tokens, measured(finished) if finished else None)
        for one in finished:
            if one is not None:
                self._device_costs.note(record.name, one)

    def settle(self) -> None:
        """Logs and counts what has ended since the last time, in its order."""
        ended, self._ended = self._ended, []
        for record in ended:
            try:
                self._settle(record)
            except Exception as error:  # noqa: BLE001 - the others are to be told all the same
                self._faults.note("access-log", error, request_id=record.request_id)

    def _settle(self, record: RequestRecord) -> None:
        elapsed = record.ended_at - record.started_at
        name = record.name
        line = RequestLine(
            event="request.finished" if record.error is None else "request.failed",
            request_id=record.request_id,
            dialect=record.dialect,
            model=excerpt(name, _MOST_NAME_BYTES) if len(name) > _SHORT_NAME else name,
            stream=record.stream,
            status=CLIENT_GONE_STATUS if record.client_gone else record.status,
            elapsed_ms=_milliseconds(elapsed),
            client_gone=record.client_gone,
            timestamp=datetime.fromtimestamp(record.ended_unix, UTC),
        )
        outcome = RequestOutcome(record.dialect, line.status, record.reason, elapsed)
        if record.principal:
            line.principal = record.principal
        served = record.served_by.last
        if served is not None:
            outcome.model = served.model
            line.instance_id = served.instance_id
            line.neuron = served.neuron
            line.attempts = record.served_by.attempts
        elif name:
            # Of a model that a key is not for, its usage says as little as of one that is not there
            is_hidden = record.reason is Reason.MODEL_UNKNOWN
            outcome.model = (not is_hidden and self._model_named(name)) or UNKNOWN_MODEL
        if name:
            self._usage.note(record.principal, outcome.model, _used(record))
        if record.sinks:
            _add_times(record, outcome, line)
            _add_tokens(record.sinks, outcome, line)
        if record.error is not None:
            line.reason = record.error.reason.value
            line.detail = record.error.message
        trace = record.served_by.trace
        if trace is not UNTRACED:
            line.trace_id = trace.trace_id
            trace.end(outcome, line)
        self._metrics.ended(outcome)
        self._log.write(line)
        self._listener.ended(record, outcome, line)


def _used(record: RequestRecord) -> Used:
    """Tokens of all prompts and answers, also of those that did not come to their end."""
    prompt, cached, completion, reasoning = record.embedded_tokens, 0, 0, 0
    for sink in record.sinks:
        end, started = sink.finished_event, sink.started_event
        if end is not None:
            usage = end.usage
            prompt += usage.prompt_tokens
            cached += usage.cached_prompt_tokens
            completion += usage.completion_tokens
            reasoning += usage.reasoning_tokens
        elif started is not None:
            prompt += started.prompt_tokens
            cached += started.cached_prompt_tokens
            completion += sink.tokens_so_far
    return Used(prompt, cached, completion, reasoning)


def _milliseconds(seconds: float) -> float:
    """With one decimal; `round` would take four times as long."""
    return int(seconds * 10_000 + 0.5) / 10


def _add_times(record: RequestRecord, outcome: RequestOutcome, line: RequestLine) -> None:
    first = record.sinks[0]
    if not first.first_token_at:
        return
    outcome.first_token_seconds = first.first_token_at - record.started_at
    outcome.queue_seconds = first.queue_seconds
    outcome.decode_seconds = outcome.seconds - outcome.first_token_seconds
    if first.first_visible_at:
        outcome.first_visible_seconds = first.first_visible_at - record.started_at
    line.first_token_ms = _milliseconds(outcome.first_token_seconds)
    line.queue_ms = _milliseconds(first.queue_seconds)


def _add_tokens(sinks: Sequence[ChoiceSink], outcome: RequestOutcome, line: RequestLine) -> None:
    """Counts over all choices that came to their end."""
    for sink in sinks:
        end = sink.finished_event
        if end is not None:
            usage = end.usage
            outcome.completion_tokens.append(usage.completion_tokens)
            outcome.prompt_tokens += usage.prompt_tokens
            outcome.cached_tokens += usage.cached_prompt_tokens
            outcome.reasoning_tokens += usage.reasoning_tokens
            line.finish_reason = _FINISH_WORDS.get(end.reason, "unspecified")
            outcome.finish_reasons.append(line.finish_reason)
    if outcome.completion_tokens:
        line.prompt_tokens = outcome.prompt_tokens
        line.cached_tokens = outcome.cached_tokens
        line.completion_tokens = sum(outcome.completion_tokens)
        line.reasoning_tokens = outcome.reasoning_tokens

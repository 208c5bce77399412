"""The access log: one line per request at its end, and its metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Final, Protocol

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason
from services.backplane.excerpt import excerpt
from services.gateway.routing.retry import ServedBy
from services.gateway.streaming.choice import ChoiceSink
from services.gateway.telemetry.metrics import UNKNOWN_MODEL, GatewayMetrics, RequestOutcome
from services.gateway.telemetry.request_log import RequestLine, RequestLog

CLIENT_GONE_STATUS: Final = 499
# A catalogue's own names have at most 256 characters.
_MOST_NAME_BYTES: Final = 256
_FINISH_WORDS: Final = MappingProxyType(
    {
        value: name.removeprefix("FINISH_REASON_").lower()
        for name, value in generation.FinishReason.items()
    }
)


class RequestRecord:
    """What is known of one request; filled in while it runs, written once at its end."""

    __slots__ = (
        "client_gone",
        "dialect",
        "error",
        "name",
        "principal",
        "request_id",
        "served_by",
        "sinks",
        "started_at",
        "status",
        "stream",
    )

    def __init__(self, dialect: str, request_id: str) -> None:
        self.dialect = dialect
        self.request_id = request_id
        self.started_at = time.monotonic()
        self.name = ""
        self.stream = False
        self.status = 0
        self.error: FleetError | None = None
        self.client_gone = False
        self.principal = ""
        self.served_by = ServedBy()
        self.sinks: Sequence[ChoiceSink] = ()

    @property
    def reason(self) -> Reason | None:
        """Why it failed; None where it did not."""
        if self.client_gone:
            return Reason.CANCELLED
        return None if self.error is None else self.error.reason


class RequestListener(Protocol):
    """Is told of every request when it ends: the console, for one."""

    def ended(self, record: RequestRecord, line: RequestLine, model: str) -> None:
        """One request has ended.

        Args:
            record: of the request.
            line: what is logged of it; not to be changed or kept.
            model: the own name of its model; UNKNOWN_MODEL where nobody knows it.
        """
        ...


class AccessLog:
    """Writes the line of each request, and counts it.

    Args:
        metrics: where it is counted.
        log: where the line goes.
        model_named: the own name of the model behind a name or alias; None where nobody knows it.
    """

    def __init__(
        self,
        metrics: GatewayMetrics,
        log: RequestLog,
        model_named: Callable[[str], str | None],
    ) -> None:
        self._metrics = metrics
        self._log = log
        self._model_named = model_named
        self._listener: RequestListener | None = None

    def tell(self, listener: RequestListener) -> None:
        """Lets a listener be told of every request from now on."""
        self._listener = listener

    def use(self, log: RequestLog) -> None:
        """Writes log lines to another logger from now on, after a reload of the settings."""
        self._log = log

    def write(self, record: RequestRecord) -> None:
        """Logs and counts one request at its end."""
        elapsed = time.monotonic() - record.started_at
        line = RequestLine(
            event="request.finished" if record.error is None else "request.failed",
            request_id=record.request_id,
            dialect=record.dialect,
            model=excerpt(record.name, _MOST_NAME_BYTES),
            stream=record.stream,
            status=CLIENT_GONE_STATUS if record.client_gone else record.status,
            elapsed_ms=round(elapsed * 1000, 1),
            client_gone=record.client_gone,
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
        elif record.name:
            outcome.model = self._model_named(record.name) or UNKNOWN_MODEL
        if record.sinks:
            _add_times(record, outcome, line)
            _add_tokens(record.sinks, outcome, line)
        if record.error is not None:
            line.reason = record.error.reason.value
            line.detail = record.error.message
        self._metrics.ended(outcome)
        self._log.write(line)
        if self._listener is not None:
            self._listener.ended(record, line, outcome.model)


def _add_times(record: RequestRecord, outcome: RequestOutcome, line: RequestLine) -> None:
    first = record.sinks[0]
    if not first.first_token_at:
        return
    outcome.first_token_seconds = first.first_token_at - record.started_at
    outcome.queue_seconds = first.queue_seconds
    outcome.decode_seconds = outcome.seconds - outcome.first_token_seconds
    if first.first_visible_at:
        outcome.first_visible_seconds = first.first_visible_at - record.started_at
    line.first_token_ms = round(outcome.first_token_seconds * 1000, 1)
    line.queue_ms = round(first.queue_seconds * 1000, 1)


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
    if outcome.completion_tokens:
        line.prompt_tokens = outcome.prompt_tokens
        line.cached_tokens = outcome.cached_tokens
        line.completion_tokens = sum(outcome.completion_tokens)
        line.reasoning_tokens = outcome.reasoning_tokens

"""The access log: one line per request at its end, and its metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Final, Protocol

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import Reason
from services.backplane.excerpt import excerpt
from services.backplane.process.faults import Faults
from services.gateway.api.request import RequestRecord
from services.gateway.limits.device_costs import DeviceCosts, joules, measured
from services.gateway.limits.reservation import Reservation
from services.gateway.limits.usage import UsageCounts, Used
from services.gateway.streaming.choice import ChoiceSink
from services.gateway.telemetry.metrics import GatewayMetrics
from services.gateway.telemetry.outcome import UNKNOWN_MODEL, RequestOutcome
from services.gateway.telemetry.request_log import RequestLine, RequestLog
from services.gateway.telemetry.request_trace import UNTRACED

CLIENT_GONE_STATUS: Final = 499
_MOST_NAME_BYTES: Final = 256  # a catalogue's own names have at most so many characters
_MOST_ENDED: Final = 64  # requests that wait to be settled; their answers are kept as long
_SHORT_NAME: Final = _MOST_NAME_BYTES // 4  # characters, which are four bytes at most
_FINISH_WORDS: Final = MappingProxyType(
    {
        value: name.removeprefix("FINISH_REASON_").lower()
        for name, value in generation.FinishReason.items()
    }
)


class RequestListener(Protocol):
    """Takes every request when it has ended: the console, for one."""

    def ended(self, record: RequestRecord, line: RequestLine, model: str) -> None:
        """One request has ended.

        Args:
            record: of the request; not to be kept.
            line: what is logged of it; not to be changed.
            model: the own name of the model that served it.
        """
        ...

    def counted(self, outcome: RequestOutcome) -> None:
        """Requests have ended of which all came out alike; `ended` was called for each before."""
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
        if record.served_by.upstream:  # no device of the fleet has worked for it
            reservation.settle(_used(record).tokens, 0)
            return
        finished = [sink.finished_event for sink in record.sinks]
        reservation.settle(_used(record).tokens, measured(finished) if finished else None)
        for one in finished:
            if one is not None:
                self._device_costs.note(record.name, one)

    def settle(self) -> None:
        """Logs what has ended since the last time, in its order, and counts it all together."""
        ended, self._ended = self._ended, []
        outcomes: dict[Hashable, RequestOutcome] = {}
        for record in ended:
            try:
                self._settle(record, outcomes)
            except Exception as error:  # noqa: BLE001 - the others are to be told all the same
                self._faults.note("access-log", error, request_id=record.request_id)
        for outcome in outcomes.values():
            with self._faults.contained("access-log"):
                self._count(outcome)

    def _count(self, outcome: RequestOutcome) -> None:
        self._metrics.ended(outcome)
        if outcome.is_named:
            self._usage.note(outcome.principal, outcome.model, outcome.used, outcome.requests)
        self._listener.counted(outcome)

    def _settle(self, record: RequestRecord, outcomes: dict[Hashable, RequestOutcome]) -> None:
        elapsed = record.ended_at - record.started_at
        line = _line(record, elapsed)
        outcome = self._outcome(record, line, outcomes)
        outcome.requests += 1
        outcome.seconds.append(elapsed)
        if record.sinks:
            decode_seconds = _add_times(record, outcome, line)
            _add_tokens(record.sinks, outcome, line, decode_seconds)
        outcome.broken_prompt_tokens += record.embedded_tokens
        trace = record.served_by.trace
        if trace is not UNTRACED:
            line.trace_id = trace.trace_id
            sinks = record.sinks
            first_at = sinks[0].first_token_at if sinks else 0.0
            trace.end(line, outcome.model, elapsed, first_at and first_at - record.started_at)
        self._log.write(line)
        self._listener.ended(record, line, outcome.model)

    def _outcome(
        self, record: RequestRecord, line: RequestLine, outcomes: dict[Hashable, RequestOutcome]
    ) -> RequestOutcome:
        """The requests that came out as this one did."""
        served, reason, name = record.served_by.last, record.reason, record.name
        neuron = instance_id = ""
        model = UNKNOWN_MODEL
        if served is not None:
            model, neuron, instance_id = served.model, served.neuron, served.instance_id
            if record.served_by.upstream:
                line.upstream = record.served_by.upstream
            else:
                line.instance_id, line.neuron = instance_id, neuron
            line.attempts = record.served_by.attempts
        elif name:
            # Of a model that a key is not for, its usage says as little as of one that is not there
            is_hidden = reason is Reason.MODEL_UNKNOWN
            model = (not is_hidden and self._model_named(name)) or UNKNOWN_MODEL
        is_named, has_failed = bool(name), record.error is not None
        key = (
            record.dialect, line.status, reason, model, record.principal, instance_id, neuron,
            is_named, has_failed,
        )  # fmt: skip
        outcome = outcomes.get(key)
        if outcome is None:
            outcome = outcomes[key] = RequestOutcome(
                dialect=record.dialect,
                status=line.status,
                reason=reason,
                model=model,
                principal=record.principal,
                neuron=neuron,
                instance_id=instance_id,
            )
            outcome.is_named, outcome.has_failed = is_named, has_failed
        return outcome


def _line(record: RequestRecord, elapsed: float) -> RequestLine:
    """What is logged of every request."""
    name, error = record.name, record.error
    line = RequestLine(
        event="request.finished" if error is None else "request.failed",
        request_id=record.request_id,
        dialect=record.dialect,
        model=excerpt(name, _MOST_NAME_BYTES) if len(name) > _SHORT_NAME else name,
        stream=record.stream,
        status=CLIENT_GONE_STATUS if record.client_gone else record.status,
        elapsed_ms=_milliseconds(elapsed),
        client_gone=record.client_gone,
        timestamp=datetime.fromtimestamp(record.ended_unix, UTC),
    )
    if record.principal:
        line.principal = record.principal
    if error is not None:
        line.reason = error.reason.value
        line.detail = error.message
    return line


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


def _add_times(record: RequestRecord, outcome: RequestOutcome, line: RequestLine) -> float:
    """The seconds from the first token to the end; 0 where none came."""
    first, began = record.sinks[0], record.started_at
    if not first.first_token_at:
        return 0.0
    seconds, queue_seconds = first.first_token_at - began, first.queue_seconds
    outcome.first_token_seconds.append(seconds)
    outcome.queue_seconds.append(queue_seconds)
    if first.first_visible_at:
        outcome.first_visible_seconds.append(first.first_visible_at - began)
    line.first_token_ms = _milliseconds(seconds)
    line.queue_ms = _milliseconds(queue_seconds)
    return record.ended_at - first.first_token_at


def _add_tokens(
    sinks: Sequence[ChoiceSink], outcome: RequestOutcome, line: RequestLine, decode_seconds: float
) -> None:
    """Counts all choices; the line tells of those that came to their end."""
    prompt = cached = completion = reasoning = ended = 0
    for sink in sinks:
        end, started = sink.finished_event, sink.started_event
        if end is not None:
            usage, made = end.usage, end.usage.completion_tokens
            ended += 1
            prompt += usage.prompt_tokens
            cached += usage.cached_prompt_tokens
            completion += made
            reasoning += usage.reasoning_tokens
            outcome.lengths.append((usage.prompt_tokens, made))
            line.finish_reason = _FINISH_WORDS.get(end.reason, "unspecified")
            outcome.finish_reasons.append(line.finish_reason)
            if made > 1 and decode_seconds > 0:
                outcome.decoded.append((made - 1, decode_seconds))
        elif started is not None:
            outcome.broken_prompt_tokens += started.prompt_tokens
            outcome.broken_cached_tokens += started.cached_prompt_tokens
            outcome.broken_completion_tokens += sink.tokens_so_far
    outcome.unfinished += len(sinks) - ended
    if ended:
        first = sinks[0].finished_event
        if first is not None and first.timings.HasField("joules"):
            line.joules = joules([sink.finished_event for sink in sinks])
        line.prompt_tokens, line.cached_tokens = prompt, cached
        line.completion_tokens, line.reasoning_tokens = completion, reasoning
        outcome.prompt_tokens += prompt
        outcome.cached_tokens += cached
        outcome.completion_tokens += completion
        outcome.reasoning_tokens += reasoning
    admitted = sinks[0].started_event
    if admitted is not None:
        outcome.admitted_prompt_tokens += admitted.prompt_tokens
        outcome.admitted_cached_tokens += admitted.cached_prompt_tokens

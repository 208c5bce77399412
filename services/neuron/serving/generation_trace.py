"""The spans of one generation: prepare, queue, prefill, decode, below the one of the whole.

The worker tells at the end how long each phase took; where the end was cut, what the daemon saw of
it counts: the admission, and the first output.

Names: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/, and our own `cortex.`
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from typing import Final

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError
from services.backplane.excerpt import excerpt
from services.backplane.tracing.rpc import REQUEST_ID, REQUEST_MODEL
from services.backplane.tracing.spans import Span, SpanKind, Tracer, read_traceparent
from services.neuron.engine_api.events import Ended

_PHASES: Final = ("queue", "prefill", "decode")
_MOST_BYTES: Final = 256


class GenerationTrace:
    """Records the times of one generation as spans; this one records none."""

    def submitted(self) -> None:
        """Records that its prompt is ready and goes to the worker."""

    def admitted(self) -> None:
        """Records that it has left the worker's queue."""

    def answered(self) -> None:
        """Records its first output."""

    def measured(self, times: Ended) -> None:
        """The worker has told its times."""

    def refuse(self, error: BaseException) -> None:
        """Ends the trace of a generation that could not begin."""

    def end(
        self,
        outcome: str,
        usage: generation.Usage,
        *,
        instance_id: str,
        error: FleetError | None,
    ) -> None:
        """Ends the trace with `finished`, `failed` or `cancelled`."""


UNTRACED: Final = GenerationTrace()


class _Traced(GenerationTrace):
    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        # submitted, admitted, answered
        self._seen: list[float] = []
        self._times: Ended | None = None

    def submitted(self) -> None:
        now = time.time()
        self._record("prepare", self._span.started_at, now)
        self._seen.append(now)

    def admitted(self) -> None:
        self._seen.append(time.time())

    def answered(self) -> None:
        self._seen.append(time.time())

    def measured(self, times: Ended) -> None:
        self._times = times

    def refuse(self, error: BaseException) -> None:
        self._span.error_type = _error_type(error)
        self._tracer.end(self._span)

    def end(
        self,
        outcome: str,
        usage: generation.Usage,
        *,
        instance_id: str,
        error: FleetError | None,
    ) -> None:
        now = time.time()
        for name, (since, until) in zip(_PHASES, self._phases(now), strict=False):
            self._record(name, since, until)
        self._span.attributes |= {
            "cortex.instance_id": instance_id,
            "cortex.outcome": outcome,
            "gen_ai.usage.input_tokens": usage.prompt_tokens,
            "gen_ai.usage.cache_read.input_tokens": usage.cached_prompt_tokens,
            "gen_ai.usage.output_tokens": usage.completion_tokens,
        }
        if error is not None:
            self._span.error_type = error.reason.value
        elif outcome == "cancelled":
            self._span.error_type = outcome
        self._tracer.end(self._span, now)

    def _phases(self, now: float) -> Iterator[tuple[float, float]]:
        times = self._times
        if times is None:
            return itertools.pairwise([*self._seen, now])
        lengths = (times.queued_seconds, times.prefill_seconds, times.decode_seconds)
        return itertools.pairwise(itertools.accumulate(lengths, initial=self._seen[0]))

    def _record(self, name: str, since: float, until: float) -> None:
        span = self._tracer.start(name, parent=self._span.context, started_at=since)
        self._tracer.end(span, until)


class GenerationTraces:
    """Begins the trace of each generation whose caller traces it.

    Args:
        tracer: of this process; None traces nothing.
    """

    def __init__(self, tracer: Tracer | None) -> None:
        self._tracer = tracer

    def begin(self, request: generation.GenerateRequest) -> GenerationTrace:
        """The trace of a generation that is about to begin."""
        if self._tracer is None or not request.traceparent:
            return UNTRACED
        parent = read_traceparent(request.traceparent)
        if parent is None or not parent.is_sampled:
            return UNTRACED
        operation = "chat" if request.WhichOneof("prompt") == "chat" else "text_completion"
        model = excerpt(request.model, _MOST_BYTES)
        span = self._tracer.start(f"{operation} {model}", kind=SpanKind.SERVER, parent=parent)
        span.attributes |= {
            REQUEST_ID: excerpt(request.request_id, _MOST_BYTES),
            REQUEST_MODEL: model,
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "cortex",
        }
        return _Traced(self._tracer, span)


def _error_type(error: BaseException) -> str:
    if isinstance(error, FleetError):
        return error.reason.value
    return "cancelled" if isinstance(error, asyncio.CancelledError) else type(error).__name__

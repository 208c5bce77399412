"""The spans of one request in the gateway: the request, its placement, each attempt on a neuron.

Names: https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/, and our own `cortex.`
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import Final, Self

from msgspec import UNSET

from services.backplane.errors import FleetError
from services.backplane.tracing.rpc import REQUEST_ID, REQUEST_MODEL, method_attributes
from services.backplane.tracing.spans import (
    TRACEPARENT,
    Attribute,
    Span,
    SpanKind,
    Tracer,
    read_traceparent,
)
from services.gateway.telemetry.request_log import RequestLine

# What a line of the log says of a request, under the names of the conventions.
_FACTS: Final = MappingProxyType(
    {
        "request_id": REQUEST_ID,
        "dialect": "cortex.dialect",
        "model": REQUEST_MODEL,
        "stream": "gen_ai.request.stream",
        "status": "http.response.status_code",
        "principal": "cortex.principal",
        "neuron": "cortex.neuron",
        "instance_id": "cortex.instance_id",
        "upstream": "cortex.upstream",
        "attempts": "cortex.attempts",
        "prompt_tokens": "gen_ai.usage.input_tokens",
        "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
        "completion_tokens": "gen_ai.usage.output_tokens",
        "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
    }
)


class Hop:
    """A call to another service on behalf of a request: a span while the context is open.

    Attributes:
        traceparent: told to the other service; empty where nothing is traced.
    """

    traceparent = ""

    @property
    def metadata(self) -> tuple[tuple[str, str], ...] | None:
        """`traceparent` as gRPC metadata; None where nothing is traced."""
        return ((TRACEPARENT, self.traceparent),) if self.traceparent else None

    def note(self, name: str) -> None:
        """Adds an event to the span."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        pass


class _TracedHop(Hop):
    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self.traceparent = span.context.traceparent

    def note(self, name: str) -> None:
        self._span.note(name)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._span.error_type = _error_type(error)
        self._tracer.end(self._span)


_NO_HOP: Final = Hop()


class RequestTrace:
    """The spans of one request. This base class makes none, for requests that are not traced.

    Attributes:
        trace_id: for the log; empty where nothing is traced.
    """

    trace_id = ""

    def hop(self, method: str, attributes: Callable[[], Mapping[str, Attribute]]) -> Hop:
        """A call to another service: its span while the context is open.

        Args:
            method: of gRPC, such as `/cortex.v1.NeuronService/Session`; without the slash in front
                it is no call of gRPC.
            attributes: what else is told of it; called where it is traced.
        """
        return _NO_HOP

    def end(self, line: RequestLine, model: str, seconds: float, first_token: float) -> None:
        """Ends the request's own span.

        Args:
            line: what is logged of it.
            model: that served it.
            seconds: from its head to the end of its answer.
            first_token: seconds until then; 0 where none came.
        """


UNTRACED: Final = RequestTrace()


class _Traced(RequestTrace):
    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self._span = span
        self.trace_id = span.context.trace_id

    def hop(self, method: str, attributes: Callable[[], Mapping[str, Attribute]]) -> Hop:
        parent = self._span.context
        span = self._tracer.start(method.strip("/"), kind=SpanKind.CLIENT, parent=parent)
        if parent.is_sampled:
            if method.startswith("/"):
                span.attributes.update(method_attributes(method))
            span.attributes.update(attributes())
        return _TracedHop(self._tracer, span)

    def end(self, line: RequestLine, model: str, seconds: float, first_token: float) -> None:
        span, told = self._span, self._span.attributes
        for field, name in _FACTS.items():
            value = getattr(line, field)
            if value is not UNSET:
                told[name] = value
        if line.finish_reason is not UNSET:
            told["gen_ai.response.finish_reasons"] = [line.finish_reason]
        if line.attempts is not UNSET:
            told["gen_ai.response.model"] = model
        if line.reason is not UNSET:
            span.error_type = line.reason
        elif line.client_gone:
            span.error_type = "cancelled"
        if first_token:
            span.note("first_token", span.started_at + first_token)
        self._tracer.end(span, span.started_at + seconds)


class RequestTraces:
    """Begins the trace of each request.

    Args:
        tracer: of this process; None traces nothing.
    """

    def __init__(self, tracer: Tracer | None) -> None:
        self._tracer = tracer

    def begin(self, name: str, headers: Mapping[str, str]) -> RequestTrace:
        """The trace of a request that has just come.

        Args:
            name: of the dialect or look-up.
            headers: in lower case; its caller's trace may be among them.
        """
        if self._tracer is None:
            return UNTRACED
        parent = read_traceparent(headers.get(TRACEPARENT, ""))
        span = self._tracer.start(f"request {name}", kind=SpanKind.SERVER, parent=parent)
        return _Traced(self._tracer, span)


def _error_type(error: BaseException) -> str:
    if isinstance(error, FleetError):
        return error.reason.value
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return "cancelled"
    return type(error).__name__

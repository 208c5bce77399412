"""Spans to a collector, by OpenTelemetry's own SDK: OTLP over HTTP, in a thread of its own.

The SDK's queue is bounded (2,048 spans; OTEL_BSP_MAX_QUEUE_SIZE): behind it spans are dropped, and
nothing waits for a collector that is away.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Final

import structlog
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace import export as sdk
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from typing_extensions import override

from services import __version__
from services.backplane.tracing.spans import Span, SpanContext, SpanExporter, SpanKind

# For what is left at the end of a process.
_CLOSING_SECONDS: Final = 2.0
_PATH: Final = "/v1/traces"
_NS: Final = 1_000_000_000
_KINDS: Final = {
    SpanKind.INTERNAL: trace.SpanKind.INTERNAL,
    SpanKind.SERVER: trace.SpanKind.SERVER,
    SpanKind.CLIENT: trace.SpanKind.CLIENT,
}

log = structlog.get_logger()


class OtlpExporter(SpanExporter):
    """Makes spans of the SDK out of ours. Used by one thread, that of the event loop.

    Args:
        service: such as `gateway`; told as `service.name`, whatever OTEL_SERVICE_NAME says: all
            services of a host may share an environment.
        endpoint: the collector's base URL; empty: as the OTEL variables say.
    """

    def __init__(self, service: str, *, endpoint: str = "") -> None:
        # its warnings come once for each batch; what is lost is told below
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        url = endpoint.rstrip("/") + _PATH if endpoint else None
        self._sending = _Sending(OTLPSpanExporter(endpoint=url))
        self._ids = _GivenIds()
        named = {"service.name": f"cortex-{service}", "service.version": __version__}
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource.create(named),
            id_generator=self._ids,
            shutdown_on_exit=False,  # it would wait for a collector that is away
        )
        self._provider.add_span_processor(sdk.BatchSpanProcessor(self._sending))
        self._tracer = self._provider.get_tracer("cortex", __version__)

    @override
    def take(self, span: Span) -> None:
        self._ids.given = span.context
        parent = otel_context.Context()
        if span.parent is not None:
            above = trace.NonRecordingSpan(_sdk_context(span.parent))
            parent = trace.set_span_in_context(above, parent)
        made = self._tracer.start_span(
            span.name,
            context=parent,
            kind=_KINDS[span.kind],
            attributes=span.attributes,
            start_time=int(span.started_at * _NS),
        )
        for event in span.events:
            made.add_event(event.name, event.attributes, int(event.at * _NS))
        if span.error_type:
            made.set_attribute("error.type", span.error_type)
            made.set_status(trace.StatusCode.ERROR)
        made.end(int(span.ended_at * _NS))

    @override
    def close(self) -> None:
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_CLOSING_SECONDS)
        self._sending.shutdown()


class _GivenIds(IdGenerator):
    """Ids that were chosen when the span began, and told to those below it."""

    given: SpanContext

    @override
    def generate_span_id(self) -> int:
        return int(self.given.span_id, 16)

    @override
    def generate_trace_id(self) -> int:
        return int(self.given.trace_id, 16)


class _Sending(sdk.SpanExporter):
    """Sends by another exporter, and logs once that the collector is away, and that it is back."""

    def __init__(self, exporter: sdk.SpanExporter) -> None:
        self._exporter = exporter
        self._lost = 0
        self._is_closed = False

    @override
    def export(self, spans: Sequence[ReadableSpan]) -> sdk.SpanExportResult:
        result = self._exporter.export(spans)
        if result is sdk.SpanExportResult.SUCCESS:
            if self._lost:
                log.info("telemetry.restored", lost_spans=self._lost)
            self._lost = 0
        else:
            if not self._lost:
                log.warning("telemetry.lost", detail="the collector does not take spans")
            self._lost += len(spans)
        return result

    @override
    def shutdown(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._exporter.shutdown()


def _sdk_context(context: SpanContext) -> trace.SpanContext:
    return trace.SpanContext(
        int(context.trace_id, 16),
        int(context.span_id, 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
    )

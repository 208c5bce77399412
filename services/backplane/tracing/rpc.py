"""Trace contexts in gRPC metadata, and the spans of calls that are served.

Names: https://opentelemetry.io/docs/specs/semconv/rpc/rpc-spans/
"""

from __future__ import annotations

from typing import Any, Final

import grpc

from services.backplane.excerpt import excerpt
from services.backplane.tracing.spans import (
    TRACEPARENT,
    Attribute,
    Span,
    SpanKind,
    Tracer,
    read_traceparent,
)

REQUEST_ID: Final = "cortex.request_id"
REQUEST_MODEL: Final = "gen_ai.request.model"
_MOST_BYTES: Final = 256
_OK: Final = grpc.StatusCode.OK.name


def told_traceparent(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """The caller's W3C `traceparent` in a call's metadata; empty where it sent none."""
    for key, value in context.invocation_metadata() or ():
        if key == TRACEPARENT:
            return value if isinstance(value, str) else value.decode("ascii", "replace")
    return ""


def method_attributes(method: str) -> dict[str, Attribute]:
    """OpenTelemetry's attributes of a method such as `/cortex.v1.NeuronService/Embed`."""
    service, _, name = method.strip("/").partition("/")
    return {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name}


def rpc_span(
    tracer: Tracer, method: str, context: grpc.aio.ServicerContext[Any, Any]
) -> Span | None:
    """Starts the span of a call that is served; None where its caller sent no trace context."""
    parent = read_traceparent(told_traceparent(context))
    if parent is None:
        return None
    span = tracer.start(method.strip("/"), kind=SpanKind.SERVER, parent=parent)
    span.attributes.update(method_attributes(method))
    return span


def end_rpc_span(tracer: Tracer, span: Span, request: Any, code: str) -> None:
    """Ends the span of a call.

    Args:
        tracer: that has begun it.
        span: of the call.
        request: what was asked; None where that came as a stream, or not at all.
        code: gRPC's name of its status.
    """
    span.attributes["rpc.grpc.status_code"] = grpc.StatusCode[code].value[0]
    for name, field in ((REQUEST_ID, "request_id"), (REQUEST_MODEL, "model")):
        if told := getattr(request, field, ""):
            span.attributes[name] = excerpt(told, _MOST_BYTES)
    span.error_type = "" if code == _OK else code
    tracer.end(span)

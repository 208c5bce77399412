"""A collector that takes spans by OTLP over HTTP and keeps them."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import socket
import threading
from collections.abc import Iterator
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from typing_extensions import override


@dataclasses.dataclass(frozen=True)
class TakenSpan:
    """One span as it came. Ids are hex; `parent` is empty for the first span of a trace."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent: str
    seconds: float
    attributes: dict[str, Any]
    events: list[str]
    is_error: bool


class Collector:
    """What has come, in order; asked from any thread.

    Attributes:
        url: for `telemetry.otlp_endpoint`.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._spans: list[TakenSpan] = []

    def take(self, body: bytes) -> None:
        """Keeps the spans of one request."""
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            service = values(resource.resource.attributes)["service.name"]
            for scope in resource.scope_spans:
                self._spans += [_span(service, each) for each in scope.spans]

    @property
    def spans(self) -> list[TakenSpan]:
        """All that have come."""
        return list(self._spans)

    def named(self, name: str, service: str = "") -> list[TakenSpan]:
        """Those of a name, and of a service where one is said."""
        return [s for s in self.spans if s.name == name and service in {"", s.service}]


def values(attributes: Any) -> dict[str, Any]:
    """Attributes as plain values."""
    return {each.key: _value(each.value) for each in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind)


def _span(service: str, span: Any) -> TakenSpan:
    return TakenSpan(
        service=service,
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
        attributes=values(span.attributes),
        events=[event.name for event in span.events],
        is_error=span.status.code == span.status.STATUS_CODE_ERROR,
    )


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port while the context is open."""
    made: list[Collector] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            is_right = self.path == "/v1/traces"
            if is_right:
                made[0].take(body)
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200 if is_right else 404)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        @override
        def log_message(self, format: str, *args: Any) -> None:
            del format, args

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made.append(Collector(f"http://127.0.0.1:{server.server_port}"))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield made[0]
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def silent_collector() -> Iterator[str]:
    """The URL of a collector that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"

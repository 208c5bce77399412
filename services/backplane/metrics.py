"""Prometheus: one registry per process, passed in; an exposition endpoint on its own port."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final
from wsgiref.simple_server import WSGIServer

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services import __version__
from services.backplane.address import Address, PortTakenError

# Seconds, from a cached prompt on a fast card to a cold prefill on a CPU.
LATENCY_BUCKETS: Final = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
)  # fmt: skip
# Tokens per second of one stream.
RATE_BUCKETS: Final = (1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 40.0, 60.0, 80.0, 120.0, 200.0, 400.0)


def new_registry(service: str) -> CollectorRegistry:
    """A registry that already tells the build and the process's own figures."""
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # half of all lines
    registry = CollectorRegistry()
    prometheus_client.ProcessCollector(registry=registry)
    prometheus_client.PlatformCollector(registry=registry)
    build = Gauge(
        "cortex_build_info", "1; what is running.", ["service", "version"], registry=registry
    )
    build.labels(service, __version__).set(1)
    return registry


class RpcMetrics:
    """What the interceptors count, on either side of the wire."""

    def __init__(self, registry: CollectorRegistry, service: str) -> None:
        self.handled = Counter(
            f"cortex_{service}_rpcs_total",
            "RPCs served, by outcome.",
            ["method", "code"],
            registry=registry,
        )
        self.seconds = Histogram(
            f"cortex_{service}_rpc_seconds",
            "Time from the first byte of an RPC to its end.",
            ["method"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.open = Gauge(
            f"cortex_{service}_rpcs_open", "RPCs being served.", ["method"], registry=registry
        )


# A page in JSON; None: not now, ask again.
Page = Callable[[], bytes | None]


@contextlib.asynccontextmanager
async def exposition(
    registry: CollectorRegistry,
    listen: Address | None,
    pages: Mapping[str, Page] = MappingProxyType({}),
) -> AsyncGenerator[int]:
    """Serves `/metrics` from a thread of its own while the context is open.

    Args:
        registry: what is exposed.
        listen: where; port 0 asks the system for one; None serves nothing.
        pages: what else is served there, by path; called in threads of their own.

    Yields: the port, or 0 where nothing is served.

    Raises:
        PortTakenError: somebody else listens there, or it is not ours to listen on.
    """
    if listen is None or listen.port is None:
        yield 0
        return
    server: WSGIServer
    try:
        server, thread = prometheus_client.start_http_server(
            listen.port, addr=listen.host, registry=registry
        )
    except OSError as error:
        raise PortTakenError(f"cannot serve metrics on {listen}: {error.strerror}") from error
    server.set_app(_with_pages(server.get_app(), pages))
    try:
        yield server.server_port
    finally:
        await asyncio.to_thread(server.shutdown)
        server.server_close()
        await asyncio.to_thread(thread.join, 2.0)


def _with_pages(metrics: Any, pages: Mapping[str, Page]) -> Any:
    """The WSGI app of the metrics, with other pages besides."""

    def app(environment: Mapping[str, Any], start_response: Any) -> Iterable[bytes]:
        page = pages.get(environment.get("PATH_INFO", ""))
        if page is None:
            answer: Iterable[bytes] = metrics(environment, start_response)
            return answer
        body = page()
        status = "200 OK" if body is not None else "503 Service Unavailable"
        start_response(status, [("Content-Type", "application/json")])
        return [body if body is not None else b"[]"]

    return app

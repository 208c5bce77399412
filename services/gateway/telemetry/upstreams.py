"""The Prometheus metrics of other servers that answer requests."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Generator

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.backplane.errors import FleetError, Reason
from services.gateway.telemetry.metrics import CANCELLED, COMPLETED


class UpstreamMetrics:
    """Requests by upstream and by how they came out. A series exists once something was counted.

    Args:
        registry: of Prometheus.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "cortex_gateway_upstream_requests_total",
            "Requests sent to another server, by its name and outcome: completed, cancelled, or the"
            " reason of the error.",
            ("upstream", "outcome"),
            registry=registry,
        )
        self._open = Gauge(
            "cortex_gateway_upstream_requests_open",
            "Requests under way at another server.",
            ("upstream",),
            registry=registry,
            multiprocess_mode="livesum",
        )

    @contextlib.contextmanager
    def counted(self, upstream: str) -> Generator[None]:
        """Counts one request, which runs while the context is open."""
        level, outcome = self._open.labels(upstream), COMPLETED
        level.inc()
        try:
            yield
        except FleetError as error:
            outcome = error.reason.value
            raise
        except asyncio.CancelledError:
            outcome = CANCELLED
            raise
        except BaseException:
            outcome = Reason.INTERNAL.value
            raise
        finally:
            level.dec()
            self._requests.labels(upstream, outcome).inc()

"""The Prometheus metrics of other servers that answer requests."""

from __future__ import annotations

import asyncio
import contextlib
import time
import warnings
from collections.abc import Generator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from services.backplane.errors import FleetError, Reason
from services.gateway.telemetry.metrics import ANSWER_BUCKETS, CANCELLED, COMPLETED, WAIT_BUCKETS


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

        self._seconds = Histogram(
            "cortex_gateway_upstream_request_seconds",
            "From a request to another server until its answer has ended, whatever came of it.",
            ("upstream",),
            buckets=ANSWER_BUCKETS,
            registry=registry,
        )
        self._first_token_seconds = Histogram(
            "cortex_gateway_upstream_time_to_first_token_seconds",
            "From a request to another server until the first token of any kind.",
            ("upstream",),
            buckets=WAIT_BUCKETS,
            registry=registry,
        )
        self._up = Gauge(
            "cortex_gateway_upstream_up",
            "0 once requests could not reach another server for five times in a row, until it"
            " answers one.",
            ("upstream",),
            registry=registry,
            multiprocess_mode="livemin",
        )

    def set_up(self, upstream: str, is_up: bool) -> None:  # noqa: FBT001 - as told by a breaker
        """Tells whether a server can be reached, as far as is known."""
        self._up.labels(upstream).set(is_up)

    def forget(self, upstream: str) -> None:
        """Shows no more whether a server can be reached that is not asked any more."""
        self._up.labels(upstream).set(1)  # several workers cannot remove it
        with contextlib.suppress(KeyError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._up.remove(upstream)

    def first_token(self, upstream: str, seconds: float) -> None:
        """Counts how long the first token of an answer took."""
        self._first_token_seconds.labels(upstream).observe(seconds)

    @contextlib.contextmanager
    def counted(self, upstream: str) -> Generator[None]:
        """Counts one request, which runs while the context is open."""
        level, outcome = self._open.labels(upstream), COMPLETED
        level.inc()
        began = time.monotonic()
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
            self._seconds.labels(upstream).observe(time.monotonic() - began)
            self._requests.labels(upstream, outcome).inc()

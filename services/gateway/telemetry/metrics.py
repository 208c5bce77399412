"""The gateway's Prometheus metrics. A series of a model exists once something was counted in it.

Requests are told by model and dialect, tokens and times by model alone: fifty models that are asked
in every dialect stay below 5,000 lines of a scrape.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric
from prometheus_client.registry import Collector

from services.backplane.errors import Reason
from services.backplane.metrics import RATE_BUCKETS
from services.gateway.telemetry.counters import (
    PendingCount,
    PendingHistogram,
    PendingLevel,
    SummedHistogram,
)
from services.gateway.telemetry.outcome import RequestOutcome
from services.gateway.telemetry.vllm import VllmCounts, VllmNames

# How a request came out: the status of a stream is 200 whatever comes behind its head.
COMPLETED: Final = "completed"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
# Seconds: whole answers, and waits for their beginning. Few, since every model has each of them.
ANSWER_BUCKETS: Final = (0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0)
WAIT_BUCKETS: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)


class _Series:
    """The series of one model."""

    __slots__ = (
        "_model", "_requests", "cached", "completion", "first_token",
        "first_visible", "outcomes", "prompt", "queue", "rate", "reasoning", "seconds",
    )  # fmt: skip

    def __init__(self, metrics: GatewayMetrics, model: str) -> None:
        def count(counter: Counter) -> PendingCount:
            return PendingCount(counter, model)

        def spread(histogram: SummedHistogram, bounds: Sequence[float]) -> PendingHistogram:
            return PendingHistogram(histogram, bounds, model)

        self._model = model
        self._requests = metrics.requests
        self.outcomes: dict[tuple[str, int, str], PendingCount] = {}
        self.prompt = count(metrics.prompt_tokens)
        self.cached = count(metrics.cached_tokens)
        self.completion = count(metrics.completion_tokens)
        self.reasoning = count(metrics.reasoning_tokens)
        self.seconds = spread(metrics.seconds, ANSWER_BUCKETS)
        self.first_token = spread(metrics.first_token_seconds, WAIT_BUCKETS)
        self.first_visible = spread(metrics.first_visible_seconds, WAIT_BUCKETS)
        self.queue = spread(metrics.queue_seconds, WAIT_BUCKETS)
        self.rate = spread(metrics.tokens_per_second, RATE_BUCKETS)

    def new_outcome(self, dialect: str, status: int, outcome: str) -> PendingCount:
        """Begins to count requests of this dialect with this status and outcome."""
        count = PendingCount(self._requests, self._model, dialect, str(status), outcome)
        self.outcomes[dialect, status, outcome] = count
        return count

    def add(self, outcome: RequestOutcome) -> None:
        """Counts tokens and times of requests."""
        self.seconds.note(outcome.seconds)
        self.first_token.note(outcome.first_token_seconds)
        self.queue.note(outcome.queue_seconds)
        self.first_visible.note(outcome.first_visible_seconds)
        self.rate.note([tokens / seconds for tokens, seconds in outcome.decoded])
        self.prompt.pending += outcome.prompt_tokens
        self.completion.pending += outcome.completion_tokens
        self.cached.pending += outcome.cached_tokens
        self.reasoning.pending += outcome.reasoning_tokens

    def settle(self) -> None:
        """Passes on to Prometheus what has come together."""
        for count in (self.prompt, self.cached, self.completion, self.reasoning):
            count.settle()
        for spread in (self.seconds, self.first_token, self.first_visible, self.queue, self.rate):
            spread.settle()
        for count in self.outcomes.values():
            count.settle()


class GatewayMetrics(Collector):
    """All metrics of the gateway.

    Args:
        registry: of Prometheus, in which they are registered.
        vllm: also under vLLM's names.
    """

    def __init__(self, registry: CollectorRegistry, *, vllm: bool = False) -> None:
        self._series: dict[str, _Series] = {}
        self._lock = threading.Lock()
        registry.register(self)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"cortex_gateway_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> SummedHistogram:
            return SummedHistogram(
                f"cortex_gateway_{name}", text, ("model",), buckets=buckets, registry=registry
            )

        def gauge(name: str, text: str, mode: Literal["livesum", "livemin"]) -> Gauge:
            # the mode tells how the figures of several workers become one
            return Gauge(f"cortex_gateway_{name}", text, registry=registry, multiprocess_mode=mode)

        self.requests = counter(
            "requests_total",
            "Requests that have ended, by HTTP status (499: client gone) and outcome: completed, "
            "failed (with status 200: behind the head of a stream), cancelled.",
            "model", "dialect", "status", "outcome",
        )  # fmt: skip
        self.prompt_tokens = counter("prompt_tokens_total", "Tokens read.", "model")
        self.cached_tokens = counter(
            "cached_prompt_tokens_total", "Tokens read that came from a cache.", "model"
        )
        self.completion_tokens = counter("completion_tokens_total", "Tokens generated.", "model")
        self.reasoning_tokens = counter(
            "reasoning_tokens_total", "Tokens generated as reasoning.", "model"
        )
        self.seconds = histogram(
            "request_seconds", "From a request's head to the end of its answer.", ANSWER_BUCKETS
        )
        self.first_token_seconds = histogram(
            "time_to_first_token_seconds", "Until the first token of any kind.", WAIT_BUCKETS
        )
        self.first_visible_seconds = histogram(
            "time_to_first_visible_token_seconds",
            "Until the first token of text or of a tool call.",
            WAIT_BUCKETS,
        )
        self.queue_seconds = histogram(
            "queue_seconds", "From the start on a neuron to its admission.", WAIT_BUCKETS
        )
        self.tokens_per_second = histogram(
            "tokens_per_second", "Of one generation, behind its first token.", RATE_BUCKETS
        )
        self.errors = counter("errors_total", "Requests that failed, by reason.", "reason")
        self.cold_starts = counter("cold_starts_total", "Requests that waited for a load.", "model")
        self.evictions = counter(
            "evictions_total", "Models evicted for a request that waited here.", "model"
        )
        self.streams_open = PendingLevel(
            gauge("streams_open", "Streamed answers under way.", "livesum")
        )
        self.requests_open = PendingLevel(gauge("requests_open", "Requests under way.", "livesum"))
        self._http1_codec = Gauge(
            "cortex_gateway_http1_codec_info",
            "1 for the HTTP/1.1 codec in use: direct (ours) or stock (Hypercorn's own).",
            ("codec",),
            registry=registry,
            multiprocess_mode="livemax",
        )
        self.ready = gauge(
            "ready", "1 while it should be sent requests, as /readyz says.", "livemin"
        )
        self.view_revision = gauge("fleet_revision", "Revision of the fleet view.", "livemin")
        for reason in Reason:
            self.errors.labels(reason.value)
        self._vllm = VllmCounts(registry) if vllm else None
        if vllm:
            registry.register(VllmNames(self._renamed))

    def expect(self, models: Iterable[str]) -> None:
        """Creates the series of these models that are rare and worth an alert, at 0."""
        for model in models:
            self.cold_starts.labels(model)
            self.evictions.labels(model)
            if self._vllm is not None:
                self._vllm.expect((model,))

    def uses_http1_codec(self, name: Literal["direct", "stock"]) -> None:
        """Tells which codec serves HTTP/1.1 in this process."""
        for one in ("direct", "stock"):
            self._http1_codec.labels(one).set(one == name)

    def cold_start(self, model: str) -> None:
        """Counts a request that waited for this model to be loaded."""
        self.cold_starts.labels(model).inc()

    def refused(self, reason: Reason) -> None:
        """Counts a request that was refused before it reached any endpoint."""
        self.errors.labels(reason.value).inc()

    def evicted(self, models: Iterable[str]) -> None:
        """Counts models that were evicted for a request."""
        for model in models:
            self.evictions.labels(model).inc()

    def ended(self, outcome: RequestOutcome) -> None:
        """Counts requests at their end."""
        model, dialect, status = outcome.model, outcome.dialect, outcome.status
        word = COMPLETED if outcome.reason is None else _word(outcome.reason)
        with self._lock:
            series = self._series.get(model) or self._new_series(model)
            outcomes = series.outcomes
            count = outcomes.get((dialect, status, word)) or series.new_outcome(
                dialect, status, word
            )
            count.pending += outcome.requests
            series.add(outcome)
            if self._vllm is not None:
                self._vllm.ended(outcome)
        if outcome.reason is not None:
            self.errors.labels(outcome.reason.value).inc(outcome.requests)

    def settle(self) -> None:
        """Passes what was counted on to Prometheus; called several times a second, and by scrapes.

        A scrape calls it in a thread of its own.
        """
        with self._lock:
            self.streams_open.settle()
            self.requests_open.settle()
            for series in self._series.values():
                series.settle()
            if self._vllm is not None:
                self._vllm.settle()

    def show_under_way(self, count: Callable[[], Mapping[str, tuple[int, int]]]) -> None:
        """Takes in what vLLM's names alone tell: by model, generations that run and that wait.

        Args:
            count: is called where the switch is on.
        """
        if self._vllm is not None:
            self._vllm.show(count())

    def collect(self) -> Iterable[Metric]:
        """Settles before the other collectors are read; has no metrics of its own."""
        self.settle()
        return ()

    def _renamed(self) -> Iterable[Metric]:
        """The families that have a name of vLLM's too."""
        counted = [self.prompt_tokens, self.cached_tokens, self.completion_tokens]
        spread = [self.seconds, self.first_token_seconds, self.queue_seconds]
        if self._vllm is not None:
            spread.append(self._vllm.inter_token)
        for each in (*counted, *spread):
            yield from each.collect()

    def _new_series(self, model: str) -> _Series:
        series = self._series[model] = _Series(self, model)
        return series


def _word(reason: Reason) -> str:
    return CANCELLED if reason is Reason.CANCELLED else FAILED

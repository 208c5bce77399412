"""The gateway's figures under the names that dashboards made for vLLM read (`vllm_metrics`).

Most are series of ours, renamed at the scrape. What ours do not tell is counted where the switch is
on. Names: https://docs.vllm.ai/en/latest/usage/metrics/
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from typing_extensions import override

from services.backplane.errors import Reason
from services.gateway.telemetry.counters import PendingCount, SummedHistogram
from services.gateway.telemetry.outcome import UNKNOWN_MODEL, RequestOutcome

_OURS: Final = "cortex_gateway_"
_THEIRS: Final = "vllm:"
_LABEL: Final = "model_name"
_BETWEEN: Final = "inter_token_latency_seconds"
# Names without `_total`, as Prometheus' families have them.
_RENAMED: Final = MappingProxyType(
    {
        f"{_OURS}prompt_tokens": ("prompt_tokens", "prefix_cache_queries"),
        f"{_OURS}cached_prompt_tokens": ("prefix_cache_hits",),
        f"{_OURS}completion_tokens": ("generation_tokens",),
        f"{_OURS}time_to_first_token_seconds": ("time_to_first_token_seconds",),
        f"{_OURS}queue_seconds": ("request_queue_time_seconds",),
        # what older releases of vLLM call it
        f"{_THEIRS}{_BETWEEN}": ("time_per_output_token_seconds",),
    }
)
# Ours, and the word that vLLM has for it.
_FINISHED: Final = MappingProxyType(
    {
        "end_of_turn": "stop",
        "stop_string": "stop",
        "tool_calls": "stop",
        "max_tokens": "length",
    }
)
_ABORTED: Final = "abort"
_FAILED: Final = "error"
_SIZE_BUCKETS: Final = (100, 1_000, 10_000, 100_000)
# From 10 ms on, bounds that vLLM has too: what asks for one of them finds it.
_GAP_BUCKETS: Final = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0)
_ANSWER_BUCKETS: Final = (0.3, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 240.0, 960.0)


class VllmNames(Collector):
    """Series of ours under vLLM's names, made at every scrape.

    Args:
        families: ours, as they are now.
    """

    def __init__(self, families: Callable[[], Iterable[Metric]]) -> None:
        self._families = families

    @override
    def collect(self) -> Iterable[Metric]:
        for family in self._families():
            for name in _RENAMED.get(family.name, ()):
                yield _renamed(family, f"{_THEIRS}{name}")


class _Pending:
    """Values that a histogram was not given yet."""

    def __init__(self, histogram: SummedHistogram, buckets: Sequence[float]) -> None:
        self._series = histogram
        self._buckets = buckets
        self._counts = [0] * (len(buckets) + 1)
        self._total = 0.0

    def note(self, value: float, times: int = 1) -> None:
        self._counts[bisect_left(self._buckets, value)] += times
        self._total += value * times

    def settle(self) -> None:
        if any(self._counts):
            self._series.take(self._counts, self._total)
            self._counts, self._total = [0] * len(self._counts), 0.0


class VllmCounts:
    """Figures that vLLM's dashboards read and that no metric of ours has.

    Not thread-safe: the caller locks.

    Args:
        registry: of Prometheus, in which it is registered.

    Attributes:
        inter_token: every token behind a first one, by the mean gap of its generation.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(
            name: str, text: str, buckets: tuple[float, ...] = _GAP_BUCKETS
        ) -> SummedHistogram:
            return SummedHistogram(
                f"{_THEIRS}{name}", text, (_LABEL,), buckets=buckets, registry=registry
            )

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(
                f"{_THEIRS}{name}", text, (_LABEL,), registry=registry, multiprocess_mode="livesum"
            )

        self.inter_token = histogram(
            _BETWEEN,
            "Time between two tokens: each counts as the mean of its generation.",
        )
        self._per_request = histogram(
            "request_time_per_output_token_seconds", "Mean time between the tokens of a generation."
        )
        self._seconds = histogram(
            "e2e_request_latency_seconds",
            "From a request's head to the end of its answer, of generations that came to it.",
            _ANSWER_BUCKETS,
        )
        self._prompt_sizes = histogram(
            "request_prompt_tokens", "Tokens of the prompts of generations.", _SIZE_BUCKETS
        )
        self._answer_sizes = histogram(
            "request_generation_tokens", "Tokens of the answers of generations.", _SIZE_BUCKETS
        )
        self._success = Counter(
            f"{_THEIRS}request_success_total",
            "Generations that have ended: stop, length, abort (client gone), error.",
            (_LABEL, "finished_reason"),
            registry=registry,
        )
        self._running = gauge("num_requests_running", "Generations that a neuron has admitted.")
        self._waiting = gauge("num_requests_waiting", "Generations that wait for a place.")
        self._gaps: dict[str, tuple[_Pending, _Pending]] = {}
        self._ended: dict[str, tuple[_Pending, _Pending, _Pending]] = {}
        self._ends: dict[tuple[str, str], PendingCount] = {}
        self._shown: dict[str, tuple[int, int]] = {}

    def expect(self, models: Iterable[str]) -> None:
        """Creates a model's series before its first request: dashboards list models by them."""
        for model in models:
            if model not in self._shown:
                self._show(model, (0, 0))

    def show(self, under_way: Mapping[str, tuple[int, int]]) -> None:
        """Takes in how many generations of each model run, and how many wait."""
        for model in {*self._shown, *under_way}:
            now = under_way.get(model, (0, 0))
            if self._shown.get(model) != now:
                self._show(model, now)

    def ended(self, outcome: RequestOutcome) -> None:
        """Counts the generations of requests at their end."""
        model = outcome.model
        if model == UNKNOWN_MODEL:
            return
        for finish in outcome.finish_reasons:
            self._count_end(model, _FINISHED.get(finish, finish))
        if outcome.unfinished and outcome.reason is Reason.CANCELLED:
            self._count_end(model, _ABORTED, outcome.unfinished)
        elif outcome.unfinished and outcome.reason is not None and _is_ours(outcome.status):
            self._count_end(model, _FAILED, outcome.unfinished)
        for gaps, seconds in outcome.decoded:
            self._count_gaps(model, gaps, seconds)
        if outcome.lengths and outcome.reason is None:  # what was refused at once is no latency
            self._count_ended(model, outcome)

    def settle(self) -> None:
        """Passes what was counted since the last call on to Prometheus."""
        for count in self._ends.values():
            count.settle()
        for pending in (*self._gaps.values(), *self._ended.values()):
            for each in pending:
                each.settle()

    def _count_end(self, model: str, word: str, times: int = 1) -> None:
        count = self._ends.get((model, word))
        if count is None:
            count = self._ends[model, word] = PendingCount(self._success, model, word)
        count.pending += times

    def _count_gaps(self, model: str, gaps: int, seconds: float) -> None:
        known = self._gaps.get(model)
        if known is None:
            known = self._gaps[model] = (
                _Pending(self.inter_token.labels(model), _GAP_BUCKETS),
                _Pending(self._per_request.labels(model), _GAP_BUCKETS),
            )
        known[0].note(seconds / gaps, gaps)
        known[1].note(seconds / gaps)

    def _count_ended(self, model: str, outcome: RequestOutcome) -> None:
        known = self._ended.get(model)
        if known is None:
            known = self._ended[model] = (
                _Pending(self._prompt_sizes.labels(model), _SIZE_BUCKETS),
                _Pending(self._answer_sizes.labels(model), _SIZE_BUCKETS),
                _Pending(self._seconds.labels(model), _ANSWER_BUCKETS),
            )
        prompts, answers, times = known
        for prompt, answer in outcome.lengths:
            prompts.note(prompt)
            answers.note(answer)
        for seconds in outcome.seconds:
            times.note(seconds)

    def _show(self, model: str, now: tuple[int, int]) -> None:
        self._shown[model] = now
        for gauge, count in zip((self._running, self._waiting), now, strict=True):
            gauge.labels(model).set(count)


def _is_ours(status: int) -> bool:
    """Whether a failure is none of the client's: a stream that broke has the status of its head."""
    return status < HTTPStatus.BAD_REQUEST or status >= HTTPStatus.INTERNAL_SERVER_ERROR


def _renamed(family: Metric, name: str) -> Metric:
    made = Metric(name, f"{family.documentation} As {family.name}.", family.type)
    for sample in family.samples:
        labels = {_LABEL if key == "model" else key: it for key, it in sample.labels.items()}
        if labels.get(_LABEL) != UNKNOWN_MODEL:
            renamed = name + sample.name.removeprefix(family.name)
            made.samples.append(Sample(renamed, labels, sample.value))
    return made

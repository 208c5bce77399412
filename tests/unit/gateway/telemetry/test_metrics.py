"""What is counted of requests reaches every scrape, exactly once."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from services.backplane.errors import Reason
from services.backplane.metrics import new_registry
from services.gateway.telemetry.metrics import GatewayMetrics
from services.gateway.telemetry.outcome import UNKNOWN_MODEL, RequestOutcome

MODEL = {"model": "tiny"}


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"cortex_gateway_{name}", labels)


def finished(*seconds: float) -> RequestOutcome:
    outcome = RequestOutcome("openai_chat", 200, None, "tiny")
    outcome.requests, outcome.seconds = len(seconds), list(seconds)
    return outcome


def test_a_scrape_sees_the_request_before_it() -> None:
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)
    outcome = finished(2.0)
    outcome.prompt_tokens, outcome.completion_tokens = 7, 11
    outcome.first_token_seconds, outcome.decoded = [0.1], [(10, 1.0)]

    metrics.ended(outcome)

    done = MODEL | {"dialect": "openai_chat", "status": "200", "outcome": "completed"}
    for _ in range(2):
        assert value(registry, "requests_total", **done) == 1
        assert value(registry, "prompt_tokens_total", **MODEL) == 7
        assert value(registry, "completion_tokens_total", **MODEL) == 11
        assert value(registry, "request_seconds_sum", **MODEL) == 2.0
        assert value(registry, "tokens_per_second_sum", **MODEL) == 10.0


def test_an_observation_on_a_bound_counts_below_it() -> None:
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)

    metrics.ended(finished(0.1, 0.2))
    metrics.ended(finished(600.0, 601.0))

    def bucket(bound: str) -> float | None:
        return value(registry, "request_seconds_bucket", **MODEL, le=bound)

    assert bucket("0.1") == 1
    assert bucket("0.5") == 2
    assert bucket("600.0") == 3
    assert bucket("+Inf") == 4
    assert value(registry, "request_seconds_count", **MODEL) == 4


def test_failures_are_told_by_reason_and_outcome() -> None:
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)

    metrics.ended(RequestOutcome("openai_chat", 404, Reason.MODEL_UNKNOWN, requests=2))
    metrics.ended(RequestOutcome("openai_chat", 499, Reason.CANCELLED, requests=2))

    unknown = {"model": UNKNOWN_MODEL, "dialect": "openai_chat"}
    for status, outcome in (("404", "failed"), ("499", "cancelled")):
        told = unknown | {"status": status, "outcome": outcome}
        assert value(registry, "requests_total", **told) == 2
    assert value(registry, "errors_total", reason="MODEL_UNKNOWN") == 2


def test_levels_rise_and_fall() -> None:
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)

    metrics.requests_open.rise()
    metrics.requests_open.rise()
    assert value(registry, "requests_open") == 2
    metrics.requests_open.fall()
    assert value(registry, "requests_open") == 1


def test_the_codec_of_http1_is_named() -> None:
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)

    metrics.uses_http1_codec("stock")

    assert value(registry, "http1_codec_info", codec="stock") == 1
    assert value(registry, "http1_codec_info", codec="direct") == 0


def test_fifty_models_in_every_dialect_stay_below_five_thousand_lines() -> None:
    registry = new_registry("gateway")
    metrics = GatewayMetrics(registry)
    metrics.expect(f"m{number}" for number in range(50))

    for number in range(50):
        for dialect in range(22):
            outcome = finished(2.0)
            outcome.dialect, outcome.model = f"d{dialect}", f"m{number}"
            outcome.first_token_seconds, outcome.first_visible_seconds = [0.1], [0.2]
            outcome.decoded, outcome.completion_tokens = [(10, 1.0)], 11
            outcome.prompt_tokens, outcome.cached_tokens, outcome.reasoning_tokens = 7, 3, 2
            metrics.ended(outcome)

    assert generate_latest(registry).count(b"\n") < 5_000


def test_what_was_never_counted_has_no_series() -> None:
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry)

    metrics.ended(RequestOutcome("models", 200, None, "tiny", requests=1, seconds=[0.1]))

    assert value(registry, "request_seconds_count", **MODEL) == 1
    assert value(registry, "time_to_first_token_seconds_count", **MODEL) is None
    assert value(registry, "prompt_tokens_total", **MODEL) is None

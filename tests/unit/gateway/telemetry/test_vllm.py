"""With the switch on, dashboards made for vLLM find their series; without it there are none."""

from __future__ import annotations

import math

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from services.backplane.errors import Reason
from services.backplane.metrics import new_registry
from services.gateway.telemetry import vllm
from services.gateway.telemetry.metrics import GatewayMetrics
from services.gateway.telemetry.outcome import UNKNOWN_MODEL, RequestOutcome

MODEL = {"model_name": "tiny"}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> GatewayMetrics:
    return GatewayMetrics(registry, vllm=True)


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(f"vllm:{name}", MODEL | labels)


def answered(model: str = "tiny", finish: str = "end_of_turn", tokens: int = 11) -> RequestOutcome:
    outcome = RequestOutcome("openai_chat", 200, None, model, requests=1, seconds=[2.0])
    outcome.first_token_seconds, outcome.queue_seconds = [0.1], [0.02]
    outcome.prompt_tokens, outcome.cached_tokens, outcome.completion_tokens = 7, 3, tokens
    outcome.decoded, outcome.finish_reasons = [(tokens - 1, 1.0)], [finish]
    outcome.lengths = [(7, tokens)]
    return outcome


def failed(status: int, reason: Reason, times: int, model: str = "tiny") -> RequestOutcome:
    return RequestOutcome("openai_chat", status, reason, model, requests=1, unfinished=times)


def test_series_of_ours_have_their_names(
    registry: CollectorRegistry, metrics: GatewayMetrics
) -> None:
    metrics.ended(answered())

    assert value(registry, "prompt_tokens_total") == 7
    assert value(registry, "generation_tokens_total") == 11
    assert value(registry, "prefix_cache_queries_total") == 7
    assert value(registry, "prefix_cache_hits_total") == 3
    assert value(registry, "time_to_first_token_seconds_sum") == 0.1
    assert value(registry, "e2e_request_latency_seconds_bucket", le="2.5") == 1
    assert value(registry, "request_queue_time_seconds_count") == 1


def test_gaps_between_tokens_count_for_each_token(
    registry: CollectorRegistry, metrics: GatewayMetrics
) -> None:
    metrics.ended(answered(tokens=11))  # gaps of 0.1 s: on a bound, which belongs to it
    metrics.ended(answered(tokens=2))  # of 1 s

    for name in ("inter_token_latency_seconds", "time_per_output_token_seconds"):
        assert value(registry, f"{name}_count") == 11
        assert value(registry, f"{name}_sum") == pytest.approx(2.0)
        assert value(registry, f"{name}_bucket", le="0.05") == 0
        assert value(registry, f"{name}_bucket", le="0.1") == 10
    assert value(registry, "request_time_per_output_token_seconds_count") == 2
    assert value(registry, "request_time_per_output_token_seconds_sum") == pytest.approx(1.1)


def test_sizes_of_prompts_and_answers_are_those_of_generations(
    registry: CollectorRegistry, metrics: GatewayMetrics
) -> None:
    for tokens in (100, 101, 6000):
        metrics.ended(answered(tokens=tokens))

    assert value(registry, "request_prompt_tokens_bucket", le="100.0") == 3
    assert value(registry, "request_generation_tokens_bucket", le="100.0") == 1
    assert value(registry, "request_generation_tokens_bucket", le="1000.0") == 2
    assert value(registry, "request_generation_tokens_sum") == 6201
    assert value(registry, "request_generation_tokens_count") == 3


def test_latency_is_that_of_generations_that_came_to_their_end(
    registry: CollectorRegistry, metrics: GatewayMetrics
) -> None:
    metrics.ended(answered())
    for refused in (failed(429, Reason.QUEUE_FULL, 1), failed(499, Reason.CANCELLED, 1)):
        refused.seconds = [0.001]
        metrics.ended(refused)
    lookup = RequestOutcome("openai_embeddings", 200, None, "tiny", requests=1, seconds=[0.001])
    metrics.ended(lookup)

    assert value(registry, "e2e_request_latency_seconds_count") == 1
    assert value(registry, "e2e_request_latency_seconds_sum") == 2.0


def test_bounds_are_some_of_vllms() -> None:
    theirs = {0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0}
    latency = {0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0}
    latency |= {120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0}

    assert {bound for bound in vllm._GAP_BUCKETS if bound >= 0.01} <= theirs
    assert set(vllm._ANSWER_BUCKETS) <= latency
    assert {round(math.log10(bound), 9) for bound in vllm._SIZE_BUCKETS} <= set(range(7))


def test_ends_are_told_in_their_words(registry: CollectorRegistry, metrics: GatewayMetrics) -> None:
    for finish in ("end_of_turn", "stop_string", "tool_calls", "max_tokens"):
        metrics.ended(answered(finish=finish))
    metrics.ended(failed(499, Reason.CANCELLED, 2))
    metrics.ended(failed(200, Reason.NEURON_LOST, 3))
    metrics.ended(failed(400, Reason.BAD_REQUEST, 4))
    metrics.ended(RequestOutcome("openai_embeddings", 502, Reason.LOAD_FAILED, "tiny", requests=9))

    told = {
        word: value(registry, "request_success_total", finished_reason=word)
        for word in ("stop", "length", "abort", "error")
    }
    assert told == {"stop": 3, "length": 1, "abort": 2, "error": 3}


def test_what_runs_and_waits_is_shown_and_falls_to_nought(
    registry: CollectorRegistry, metrics: GatewayMetrics
) -> None:
    metrics.expect(["tiny"])
    assert value(registry, "num_requests_running") == 0

    metrics.show_under_way(lambda: {"tiny": (3, 2)})
    assert value(registry, "num_requests_running") == 3
    assert value(registry, "num_requests_waiting") == 2

    metrics.show_under_way(dict)
    assert value(registry, "num_requests_running") == 0
    assert value(registry, "num_requests_waiting") == 0


def test_requests_for_no_model_have_no_series(
    registry: CollectorRegistry, metrics: GatewayMetrics
) -> None:
    metrics.ended(answered(model=UNKNOWN_MODEL))

    page = generate_latest(registry).decode()
    assert f'model_name="{UNKNOWN_MODEL}"' not in page
    assert f'model="{UNKNOWN_MODEL}"' in page


def test_without_the_switch_nothing_has_their_names(registry: CollectorRegistry) -> None:
    metrics = GatewayMetrics(registry)
    metrics.expect(["tiny"])
    metrics.ended(answered())
    metrics.show_under_way(lambda: pytest.fail("counted for nobody"))

    assert b"vllm:" not in generate_latest(registry)


def test_fifty_models_add_less_than_five_thousand_lines() -> None:
    sizes = []
    for is_on in (False, True):
        registry = new_registry("gateway")
        metrics = GatewayMetrics(registry, vllm=is_on)
        metrics.expect(f"m{number}" for number in range(50))
        for number in range(50):
            for finish in ("end_of_turn", "max_tokens"):
                metrics.ended(answered(f"m{number}", finish))
            for status, reason in ((499, Reason.CANCELLED), (500, Reason.INTERNAL)):
                metrics.ended(failed(status, reason, 1, f"m{number}"))
        sizes.append(generate_latest(registry).count(b"\n"))

    assert sizes[1] - sizes[0] < 5_000

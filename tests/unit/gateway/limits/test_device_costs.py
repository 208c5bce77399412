"""Estimates of the devices' time, learned from answers."""

from __future__ import annotations

import pytest
from msgspec import UNSET, UnsetType

from cortex.v1 import generation_pb2 as generation
from services.gateway.limits.device_costs import DeviceCosts, joules, measured


def finished(
    *, prompt: int = 0, cached: int = 0, made: int = 0, prefill_ms: int = 0, decode_ms: int = 0
) -> generation.GenerationFinished:
    end = generation.GenerationFinished()
    end.usage.prompt_tokens, end.usage.cached_prompt_tokens = prompt, cached
    end.usage.completion_tokens = made
    end.timings.device_prefill.FromMilliseconds(prefill_ms)
    end.timings.device_decode.FromMilliseconds(decode_ms)
    return end


def test_before_anything_was_measured_a_second_is_reserved() -> None:
    assert DeviceCosts().milliseconds("m", prompt_tokens=10**6, output_tokens=10**6) == 1000


def test_tokens_that_are_read_and_made_have_prices_of_their_own() -> None:
    costs = DeviceCosts()
    costs.note("m", finished(prompt=60, cached=10, made=20, prefill_ms=100, decode_ms=400))

    assert costs.milliseconds("m", prompt_tokens=1000, output_tokens=100) == 4000


def test_an_unknown_model_costs_what_others_do() -> None:
    costs = DeviceCosts()
    costs.note("m", finished(prompt=10, made=10, prefill_ms=10, decode_ms=100))

    assert costs.milliseconds("other", prompt_tokens=10, output_tokens=10) == 110


def test_of_a_prompt_out_of_the_cache_no_price_is_learned() -> None:
    costs = DeviceCosts()
    costs.note("m", finished(prompt=10, made=10, prefill_ms=10, decode_ms=100))
    costs.note("m", finished(prompt=10, cached=10, made=10, decode_ms=100))

    assert costs.milliseconds("m", prompt_tokens=10, output_tokens=0) == 10


def test_nothing_is_learned_from_a_neuron_that_does_not_measure() -> None:
    costs = DeviceCosts()
    end = generation.GenerationFinished()
    end.usage.completion_tokens = 5
    costs.note("m", end)

    assert costs.milliseconds("m", prompt_tokens=1, output_tokens=1) == 1000
    assert measured([end]) is None


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([finished(prefill_ms=3, decode_ms=4), finished(decode_ms=5)], 12),
        ([finished(prefill_ms=3, decode_ms=4), None], None),
        ([], 0),
    ],
)
def test_what_all_answers_took(
    answers: list[generation.GenerationFinished | None], told: int | None
) -> None:
    assert measured(answers) == told


def test_a_neuron_that_tells_of_time_that_cannot_be_changes_no_budget_beyond_reason() -> None:
    below, beyond = finished(prompt=10, made=10), finished(prompt=10, made=10)
    for timing in (below.timings.device_prefill, below.timings.device_decode):
        timing.seconds = -(2**62)
    for timing in (beyond.timings.device_prefill, beyond.timings.device_decode):
        timing.seconds = 2**62
    costs = DeviceCosts()

    assert measured([below]) == 0
    assert (measured([beyond]) or 0) < 2**32
    costs.note("m", below)
    assert costs.milliseconds("m", prompt_tokens=10, output_tokens=10) == 1
    costs.note("m", beyond)
    assert costs.milliseconds("m", prompt_tokens=10, output_tokens=10) < 2**32


def of_energy(count: float | None) -> generation.GenerationFinished:
    return generation.GenerationFinished(timings=generation.Timings(joules=count))


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ([of_energy(1.25), of_energy(2.5)], 3.75),
        ([of_energy(0.0)], 0.0),
        ([of_energy(1.25), of_energy(None)], UNSET),
        ([of_energy(1.25), None], UNSET),
        ([of_energy(float("nan"))], UNSET),
        ([of_energy(float("inf"))], UNSET),
        ([of_energy(-1.0)], UNSET),
    ],
)
def test_the_energy_of_all_answers_where_each_tells_it(
    answers: list[generation.GenerationFinished | None], told: float | UnsetType
) -> None:
    assert joules(answers) == told

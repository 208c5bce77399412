from typing import Any

import pytest

from services.backplane.errors import FleetError
from services.neuron.engine_api.task import Prompt, StopParams, Task
from services.neuron.engines.exllamav2.batch.intake import BatchLimits, check_limits

LIMITS = BatchLimits(context_tokens=1000, cache_tokens=600, echo_tokens=100)


def task(**fields: Any) -> Task:
    return Task(1, "i", Prompt(), **fields)


def refusal(wanted: Task, tokens: int) -> FleetError:
    with pytest.raises(FleetError) as caught:
        check_limits(wanted, [1] * tokens, LIMITS)
    return caught.value


@pytest.mark.parametrize(
    ("wanted", "tokens", "reason"),
    [
        (task(), 600, "NEVER_FITS"),
        (task(stop=StopParams(max_tokens=500)), 101, "NEVER_FITS"),
        (task(echo_prompt_logprobs=True), 101, "UNSUPPORTED_FIELD"),
    ],
)
def test_what_can_never_run_is_refused(wanted: Task, tokens: int, reason: str) -> None:
    assert refusal(wanted, tokens).reason.value == reason


def test_the_numbers_are_told() -> None:
    error = refusal(task(stop=StopParams(max_tokens=700)), 200)

    assert error.facts == {"needed_tokens": "900", "cache_tokens": "600"}


@pytest.mark.parametrize(
    ("wanted", "tokens"),
    [
        (task(), 599),
        (task(stop=StopParams(max_tokens=0)), 600),
        (task(stop=StopParams(max_tokens=500)), 100),
        (task(echo_prompt_logprobs=True), 100),
    ],
)
def test_what_just_fits_is_taken(wanted: Task, tokens: int) -> None:
    check_limits(wanted, [1] * tokens, LIMITS)

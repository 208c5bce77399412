from typing import Any

import pytest

from services.backplane.errors import FleetError
from services.neuron.engine_api.task import Prompt, SamplingParams, StopParams, Task
from services.neuron.engines.common.admission import Pace
from services.neuron.engines.exllamav2.batch.intake import Limits, check, places, queue_timed_out
from services.neuron.engines.exllamav2.model import vision

LIMITS = Limits(
    context_tokens=1000, cache_tokens=600, vocabulary=50, reads_images=False, echo_tokens=100
)


def task(**fields: Any) -> Task:
    return Task(1, "i", Prompt(), **fields)


def refusal(wanted: Task, tokens: int, limits: Limits = LIMITS) -> FleetError:
    with pytest.raises(FleetError) as caught:
        check(wanted, [1] * tokens, limits)
    return caught.value


@pytest.mark.parametrize(
    ("wanted", "tokens", "reason"),
    [
        (task(images=(b"x",)), 5, "WRONG_MODALITY"),
        (task(), 0, "BAD_REQUEST"),
        (task(), 1000, "CONTEXT_TOO_LONG"),
        (task(resume_token_ids=(1, 2)), 998, "CONTEXT_TOO_LONG"),
        (task(), 600, "NEVER_FITS"),
        (task(stop=StopParams(max_tokens=500)), 101, "NEVER_FITS"),
        (task(echo_prompt_logprobs=True), 101, "UNSUPPORTED_FIELD"),
        (task(sampling=SamplingParams(logit_bias={50: 1.0})), 5, "BAD_REQUEST"),
        (task(stop=StopParams(token_ids=(50,))), 5, "BAD_REQUEST"),
        (task(resume_token_ids=(50,)), 5, "BAD_REQUEST"),
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
    check(wanted, [1] * tokens, LIMITS)


def test_places_are_told_in_order() -> None:
    assert [(q.task_id, q.position) for q in places([7, 5], Pace(1))] == [(7, 0), (5, 1)]
    assert queue_timed_out(3.25, 2, Pace(1)).message.endswith("3.2 seconds.")


def test_a_marker_gives_way_to_its_picture() -> None:
    assert vision.replace([1, 8, 9, 2, 8, 9, 3], (8, 9), [[100, 101], [200]]) == [
        1, 100, 101, 2, 200, 3,
    ]  # fmt: skip


@pytest.mark.parametrize("runs", [[], [[1]], [[1], [2], [3]]])
def test_pictures_and_places_must_match(runs: list[list[int]]) -> None:
    with pytest.raises(FleetError, match=f"2 places for images and {len(runs)} images"):
        vision.replace([8, 8], (8,), runs)


def test_the_marker_is_the_models_own() -> None:
    assert vision.marker_ids({"[IMG]": 10, "x": 1}) == (10,)
    assert vision.marker_ids({"<|vision_start|>": 1, "<|image_pad|>": 2, "<|vision_end|>": 3}) == (
        1,
        2,
        3,
    )
    assert vision.marker_ids({}) == ()

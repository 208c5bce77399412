from typing import Any

import pytest

from services.backplane.errors import FleetError
from services.neuron.engine_api.model import ModelInfo
from services.neuron.engine_api.task import (
    Constraint,
    ConstraintKind,
    Prompt,
    SamplingParams,
    StopParams,
    Task,
)
from services.neuron.engines.common.constraint import ConstraintCompiler
from services.neuron.engines.common.task_checks import check_task, start_constraint

INFO = ModelInfo(
    engine="e",
    architecture="a",
    max_context_tokens=1000,
    max_sequences=1,
    max_queued=1,
    cache_tokens=1000,
    vocabulary_size=50,
)


def task(**fields: Any) -> Task:
    return Task(1, "i", Prompt(), **fields)


@pytest.mark.parametrize(
    ("wanted", "tokens", "reason"),
    [
        (task(images=(b"x",)), 5, "WRONG_MODALITY"),
        (task(), 0, "BAD_REQUEST"),
        (task(), 1000, "CONTEXT_TOO_LONG"),
        (task(resume_token_ids=(1, 2)), 998, "CONTEXT_TOO_LONG"),
        (task(sampling=SamplingParams(logit_bias={50: 1.0})), 5, "BAD_REQUEST"),
        (task(stop=StopParams(token_ids=(50,))), 5, "BAD_REQUEST"),
        (task(resume_token_ids=(50,)), 5, "BAD_REQUEST"),
        (task(max_context_tokens=20), 20, "CONTEXT_TOO_LONG"),
        (task(max_context_tokens=2000), 1000, "CONTEXT_TOO_LONG"),
    ],
)
def test_what_can_never_run_is_refused(wanted: Task, tokens: int, reason: str) -> None:
    with pytest.raises(FleetError) as caught:
        check_task(wanted, [1] * tokens, INFO)

    assert caught.value.reason.value == reason


@pytest.mark.parametrize(
    ("wanted", "tokens"),
    [
        (task(), 999),
        (task(max_context_tokens=20), 19),
        (task(stop=StopParams(max_tokens=0)), 1000),
        (task(resume_token_ids=(49,)), 9),
    ],
)
def test_what_just_fits_is_taken(wanted: Task, tokens: int) -> None:
    check_task(wanted, [1] * tokens, INFO)


def test_a_resumed_task_is_measured_with_its_output() -> None:
    with pytest.raises(FleetError) as caught:
        check_task(task(resume_token_ids=(1, 2)), [1] * 998, INFO)

    assert caught.value.facts == {"prompt_tokens": "1000", "max_context_tokens": "1000"}


def test_a_constraint_starts_behind_the_output_so_far() -> None:
    compiler = ConstraintCompiler(
        pieces=[b"a", b"b", b""],
        special_token_ids=[2],
        eos_token_id=2,
        tokenize=lambda text: [b"ab".index(each) for each in text],
    )
    wanted = Constraint(ConstraintKind.REGEX, "ab")

    assert not start_constraint(compiler, wanted, [0]).is_finished
    assert start_constraint(compiler, wanted, [0, 1]).is_finished
    with pytest.raises(FleetError) as caught:
        start_constraint(compiler, wanted, [1])
    assert (caught.value.reason.value, caught.value.field) == ("BAD_CONSTRAINT", "constraint")

"""What every engine checks before a task may queue."""

from __future__ import annotations

from collections.abc import Sequence

from services.backplane.errors import FleetError, Reason, context_too_long
from services.neuron.engine_api.model import ModelInfo
from services.neuron.engine_api.task import Constraint, Task
from services.neuron.engines.common.constraint import (
    BadConstraintError,
    ConstraintCompiler,
    OutputConstraint,
)
from services.neuron.engines.common.tokeniser import unknown_token


def check_task(task: Task, prompt: Sequence[int], info: ModelInfo) -> None:
    """Refuses what can never run, whatever else runs.

    1. Images need a model that reads them.
    2. The prompt has at least one token.
    3. Prompt, resumed output and one token more fit into the context, and into what the task's
       principal may have of it; without the one token where `max_tokens` is 0.
    4. Every token id of the logit bias, the stop tokens and the resumed output is in the
       vocabulary.

    Args:
        task: what was asked for.
        prompt: its token ids, with those of pictures.
        info: of the model.

    Raises:
        FleetError: WRONG_MODALITY, BAD_REQUEST or CONTEXT_TOO_LONG.
    """
    if task.images and not info.supports_images:
        raise FleetError(Reason.WRONG_MODALITY, "This model reads no images.")
    if not prompt:
        raise FleetError(Reason.BAD_REQUEST, "The prompt is empty.", field="prompt")
    most = context_tokens(task, info.max_context_tokens)
    if tokens_needed(task, prompt) > most:
        read = len(prompt) + len(task.resume_token_ids)
        raise context_too_long(prompt_tokens=read, max_tokens=most)
    for field, token_ids in (
        ("sampling.logit_bias", task.sampling.logit_bias),
        ("stop.stop_token_ids", task.stop.token_ids),
        ("resume_from", task.resume_token_ids),
    ):
        for token_id in token_ids:
            if not 0 <= token_id < info.vocabulary_size:
                raise unknown_token(field, token_id, info.vocabulary_size)


def context_tokens(task: Task, most: int) -> int:
    """The longest prompt plus completion of a task, where the model takes `most` tokens."""
    return most if task.max_context_tokens is None else min(most, task.max_context_tokens)


def tokens_needed(task: Task, prompt: Sequence[int]) -> int:
    """Tokens of context that a task takes at least: room for one of output, if any is wanted."""
    return len(prompt) + len(task.resume_token_ids) + (task.stop.max_tokens != 0)


def start_constraint(
    compiler: ConstraintCompiler, constraint: Constraint, output: Sequence[int]
) -> OutputConstraint:
    """A constraint at its place behind the output so far.

    Raises:
        FleetError: BAD_CONSTRAINT, it cannot be enforced, or the output does not fit it.
    """
    try:
        started = compiler.compile(constraint)
        for token_id in output:
            started.accept(token_id)
    except BadConstraintError as error:
        raise FleetError(Reason.BAD_CONSTRAINT, str(error), field="constraint") from error
    return started

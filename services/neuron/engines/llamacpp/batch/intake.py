"""What is checked and prepared before a task may queue."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from services.backplane.errors import FleetError, Reason, context_too_long
from services.neuron.engine_api.task import Task
from services.neuron.engines.common.constraint import (
    BadConstraintError,
    ConstraintCompiler,
    OutputConstraint,
)


@dataclasses.dataclass(slots=True)
class Prepared:
    """A task that can run.

    Attributes:
        task: what was asked for.
        tokens: its prompt, then the output that it resumes.
        prompt_tokens: how many of them are the prompt.
        constraint: at the place where the output goes on.
        extra_credit: credit that came while it waited.
    """

    task: Task
    tokens: list[int]
    prompt_tokens: int
    constraint: OutputConstraint | None
    extra_credit: int = 0

    @property
    def is_echoed(self) -> bool:
        """True if the prompt's log probabilities are wanted; a resumed task has told them."""
        return self.task.echo_prompt_logprobs and not self.task.resume_token_ids


def prepare(
    task: Task,
    prompt: Sequence[int],
    *,
    max_context_tokens: int,
    vocabulary_size: int,
    compiler: ConstraintCompiler,
) -> Prepared:
    """Refuses at once what can never run.

    Raises:
        FleetError: WRONG_MODALITY, BAD_REQUEST, CONTEXT_TOO_LONG or BAD_CONSTRAINT.
    """
    if task.images:
        raise FleetError(Reason.WRONG_MODALITY, "This model reads no images.")
    if not prompt:
        raise FleetError(Reason.BAD_REQUEST, "The prompt is empty.", field="prompt")
    tokens = [*prompt, *task.resume_token_ids]
    # Room for at least one token of output, unless none is wanted.
    needed = len(tokens) + (task.stop.max_tokens != 0)
    if needed > max_context_tokens:
        raise context_too_long(prompt_tokens=len(tokens), max_tokens=max_context_tokens)
    _refuse_unknown_tokens("sampling.logit_bias", task.sampling.logit_bias, vocabulary_size)
    _refuse_unknown_tokens("stop.stop_token_ids", task.stop.token_ids, vocabulary_size)
    _refuse_unknown_tokens("resume_from", task.resume_token_ids, vocabulary_size)
    return Prepared(task, tokens, len(prompt), _constraint(task, compiler))


def _refuse_unknown_tokens(field: str, token_ids: Iterable[int], vocabulary_size: int) -> None:
    for token_id in token_ids:
        if not 0 <= token_id < vocabulary_size:
            raise FleetError(
                Reason.BAD_REQUEST,
                f"Token id {token_id} is not in the vocabulary (0 to {vocabulary_size - 1}).",
                field=field,
            )


def _constraint(task: Task, compiler: ConstraintCompiler) -> OutputConstraint | None:
    if task.constraint is None:
        return None
    try:
        constraint = compiler.compile(task.constraint)
        for token_id in task.resume_token_ids:
            constraint.accept(token_id)
    except BadConstraintError as error:
        raise FleetError(Reason.BAD_CONSTRAINT, str(error), field="constraint") from error
    return constraint

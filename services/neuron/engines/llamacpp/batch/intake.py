"""What is checked and prepared before a task may queue."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence

from services.neuron.engine_api.model import ModelInfo
from services.neuron.engine_api.task import Task
from services.neuron.engines.common.constraint import ConstraintCompiler, OutputConstraint
from services.neuron.engines.common.marks import Mark, marks_of
from services.neuron.engines.common.task_checks import check_task, start_constraint


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

    def marks(self, control_ids: Collection[int]) -> list[Mark]:
        """Lengths of the beginnings of its prompt that have names, and these, rising."""
        return marks_of(
            self.task.marks,
            self.tokens,
            prompt_tokens=self.prompt_tokens,
            control_ids=control_ids,
        )


def prepare(
    task: Task, prompt: Sequence[int], *, info: ModelInfo, compiler: ConstraintCompiler
) -> Prepared:
    """Refuses at once what can never run; see `check_task`.

    Raises:
        FleetError: WRONG_MODALITY, BAD_REQUEST, CONTEXT_TOO_LONG or BAD_CONSTRAINT.
    """
    check_task(task, prompt, info)
    constraint = None
    if task.constraint is not None:
        constraint = start_constraint(compiler, task.constraint, task.resume_token_ids)
    return Prepared(task, [*prompt, *task.resume_token_ids], len(prompt), constraint)

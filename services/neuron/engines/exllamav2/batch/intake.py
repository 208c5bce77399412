"""What this engine alone checks before a task may queue. Pure.

The library would crash on it, or only assert.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.task import Task
from services.neuron.engines.common.task_checks import tokens_needed


@dataclasses.dataclass(frozen=True, slots=True)
class BatchLimits:
    """What a task must keep to, in tokens.

    Attributes:
        context_tokens: longest prompt plus completion.
        cache_tokens: what one task may take of the cache at most, drafts not counted.
        echo_tokens: longest prompt whose own log probabilities can be told.
    """

    context_tokens: int
    cache_tokens: int
    echo_tokens: int

    @property
    def longest(self) -> int:
        """Longest prompt plus completion that can run."""
        return min(self.context_tokens, self.cache_tokens)


def check_limits(task: Task, prompt: Sequence[int], limits: BatchLimits) -> None:
    """Refuses what does not fit into the cache even alone.

    Args:
        task: what was asked for; it has passed `check_task`.
        prompt: its token ids, with those of pictures.
        limits: of the model.

    Raises:
        FleetError: NEVER_FITS or UNSUPPORTED_FIELD.
    """
    needed = tokens_needed(task, prompt)
    most = len(prompt) + (task.stop.max_tokens or 0)
    if max(needed, min(most, limits.context_tokens)) > limits.cache_tokens:
        raise _never_fits(max(needed, most), limits.cache_tokens)
    if task.echo_prompt_logprobs and len(prompt) > limits.echo_tokens:
        raise FleetError(
            Reason.UNSUPPORTED_FIELD,
            f"Log probabilities of the prompt are told for up to {limits.echo_tokens} tokens;"
            f" this one has {len(prompt)}.",
            field="logprobs.echo_prompt",
        )


def _never_fits(needed: int, cache: int) -> FleetError:
    return FleetError(
        Reason.NEVER_FITS,
        f"The request takes up to {needed} tokens of cache; the model was loaded with {cache}.",
        facts={"needed_tokens": str(needed), "cache_tokens": str(cache)},
    )

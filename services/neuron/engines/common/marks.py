"""Names for the beginnings of prompts, and how many tokens each of them has."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import Final

from services.neuron.engine_api.task import PromptMarks

Mark = tuple[int, bytes]
"""After so many tokens ends what has this name."""
MOST_MARKS: Final = 64
"""Of one sequence."""


def marks_of(
    names: PromptMarks | None,
    tokens: Sequence[int],
    *,
    prompt_tokens: int,
    control_ids: Collection[int],
) -> list[Mark]:
    """Finds where the named beginnings of a prompt end, in tokens, the shortest first.

    Args:
        names: as the caller gave them; None: none.
        tokens: the prompt's, and maybe more.
        prompt_tokens: how many are the prompt's.
        control_ids: ids of control tokens, by which the end of the head is found.
    """
    found = list[Mark]()
    if names is None:
        return found
    if names.head and names.head_controls:
        places = (at for at, token in enumerate(tokens) if token in control_ids)
        at = next(itertools.islice(places, names.head_controls - 1, None), 0)
        if 0 < at < prompt_tokens:
            found.append((at, names.head))
    if names.whole:
        found.append((prompt_tokens, names.whole))
    return found


def with_mark(marks: Sequence[Mark], mark: Mark) -> list[Mark]:
    """Adds a mark to others, keeping them sorted by length.

    Of more than `MOST_MARKS` the second goes: the first is what most prompts share.
    """
    made = sorted([*(one for one in marks if one[1] != mark[1]), mark])
    del made[1 : max(1, len(made) - MOST_MARKS + 1)]
    return made


def saved_marks(marks: Sequence[Mark], length: int) -> tuple[Mark, ...]:
    """The shortest and the longest of the marks within `length` tokens: kept with a saved one."""
    within = [mark for mark in marks if mark[0] <= length]
    return tuple(within[:1] + within[1:][-1:])

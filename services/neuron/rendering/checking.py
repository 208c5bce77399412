"""Tries a constraint where it can be ended, before an engine has to compile it."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Final

from services.neuron.engine_api.task import Constraint

if TYPE_CHECKING:
    from services.neuron.engines.common.constraint import ConstraintCompiler

_BYTES: Final = 256


def check(constraint: Constraint, vocabulary_size: int) -> None:
    """Returns once it is compiled, or is known not to compile.

    What costs much does not depend on the vocabulary (whether patterns exclude each other), so one
    of single bytes does; the ids of control tokens that a grammar names have to be in it.
    """
    from services.neuron.engines.common.constraint import BadConstraintError

    with contextlib.suppress(BadConstraintError):  # the worker says it in its own words
        _compiler(vocabulary_size).compile(constraint)


@functools.lru_cache(maxsize=1)
def _compiler(vocabulary_size: int) -> ConstraintCompiler:
    from services.neuron.engines.common.constraint import ConstraintCompiler

    size = max(vocabulary_size, _BYTES + 1)
    pieces = [bytes([index]) if index < _BYTES else b"" for index in range(size)]
    return ConstraintCompiler(
        pieces=pieces,
        special_token_ids=range(_BYTES, size),
        eos_token_id=size - 1,
        tokenize=list,
    )

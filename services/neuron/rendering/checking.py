"""Tries a constraint where it can be ended, before an engine has to compile it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from services.backplane.errors import FleetError, Reason
from services.neuron.rendering.frames import CheckConstraint

if TYPE_CHECKING:
    from services.neuron.engines.common.constraint import ConstraintCompiler

_BYTES: Final = 256


def check(asked: CheckConstraint) -> None:
    """Compiles a constraint, and returns once it is compiled or known not to compile.

    What costs much does not depend on the vocabulary (whether patterns exclude each other), so one
    of single bytes does; the ids of control tokens that a grammar names have to be in it.

    Raises:
        FleetError: BAD_CONSTRAINT, it has to hold and cannot be enforced.
    """
    from services.neuron.engines.common.constraint import BadConstraintError

    try:
        _compiler(asked.vocabulary_size).compile(asked.constraint)
    except BadConstraintError as error:
        if asked.has_to_hold:
            raise FleetError(Reason.BAD_CONSTRAINT, str(error), field="constraint") from error
        # else the worker says it in its own words


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

"""What the dialects have in common: turns of one role made one, and how a model samples."""

from collections.abc import Iterable
from typing import Any

from services.agent.core.history import AssistantTurn, ResultsTurn, Turn, UserTurn
from services.agent.core.model_options import ModelOptions


def sampling(options: ModelOptions) -> dict[str, Any]:
    """Returns the fields of a body that say how tokens are chosen; none for what is not set."""
    fields = {"temperature": options.temperature, "top_p": options.top_p}
    return {name: value for name, value in fields.items() if value is not None}


def merged(turns: Iterable[Turn]) -> list[Turn]:
    """Joins user turns that follow each other, and drops empty assistant turns.

    Both arise when a prompt was cancelled or failed before the model answered.
    """
    result: list[Turn] = []
    for turn in turns:
        last = result[-1] if result else None
        if isinstance(turn, UserTurn) and isinstance(last, UserTurn):
            result[-1] = UserTurn(parts=last.parts + turn.parts)
        elif not _is_empty(turn):
            result.append(turn)
    return result


def _is_empty(turn: Turn) -> bool:
    if isinstance(turn, AssistantTurn):
        return not turn.text and not turn.calls
    return isinstance(turn, ResultsTurn) and not turn.results

"""Neighbouring turns of one role made one, as strict chat templates and APIs demand."""

from collections.abc import Iterable

from services.agent.core.history import AssistantTurn, ResultsTurn, Turn, UserTurn


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

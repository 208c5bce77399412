"""Fits a conversation into a model's window by leaving out the least of it. Pure.

What is left out is a projection: the stored history stays whole. User turns and call ids are never
touched, the last turns only where nothing else helps, the very last one never. Two marks only ever
move forward, and move well below the budget when they must, so that the beginning of the prompt,
which caches live on, rarely changes.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from services.agent.core.history import (
    AssistantTurn,
    ImagePart,
    ResultsTurn,
    ToolCall,
    ToolResult,
    Turn,
    UserTurn,
)

CHARACTERS_PER_TOKEN: Final = 3.5
"""Of a conversation, as long as no endpoint has said how many tokens it had."""
_TOKENS_PER_TURN = 8
_TOKENS_PER_IMAGE = 512
_RESERVE_TOKENS = 512
_DEFAULT_ANSWER_TOKENS = 2048
_PROTECTED_TURNS = 4
_SHORTEST_ELIDED = 256  # characters
_TARGET = 0.75  # of the budget, once it is exceeded


class Marks(msgspec.Struct, frozen=True):
    """Up to which turn something is left out.

    Attributes:
        results: tool results and long arguments of turns before this index.
        prose: the assistant's own text of turns before this index.
    """

    results: int = 0
    prose: int = 0


def prompt_budget(window: int, max_tokens: int | None) -> int:
    """Returns the tokens that a prompt may have in a window, at least a quarter of it."""
    answer = _DEFAULT_ANSWER_TOKENS if max_tokens is None else max_tokens
    return max(window - answer - _RESERVE_TOKENS, window // 4)


def estimate(
    turns: Sequence[Turn],
    overhead_characters: int = 0,
    *,
    characters_per_token: float = CHARACTERS_PER_TOKEN,
) -> int:
    """Estimates tokens by their characters, and a little for every turn and picture."""
    tokens = overhead_characters / characters_per_token
    for turn in turns:
        tokens += _TOKENS_PER_TURN
        if isinstance(turn, UserTurn):
            for part in turn.parts:
                if isinstance(part, ImagePart):
                    tokens += _TOKENS_PER_IMAGE
                else:
                    tokens += len(part.text) / characters_per_token
        elif isinstance(turn, AssistantTurn):
            tokens += (len(turn.text) + sum(map(_call_length, turn.calls))) / characters_per_token
        else:
            tokens += sum(len(each.text) for each in turn.results) / characters_per_token
    return int(tokens)


def project(turns: Sequence[Turn], marks: Marks) -> list[Turn]:
    """Returns the turns as the model sees them; those that endpoints refuse are not among them."""
    return [
        _projected(turn, index, marks)
        for index, turn in enumerate(turns)
        if not (isinstance(turn, UserTurn) and turn.is_refused)
    ]


def _projected(turn: Turn, index: int, marks: Marks) -> Turn:
    if index < marks.results:
        turn = _without_results(turn)
    return _without_prose(turn) if index < marks.prose else turn


def advance(
    turns: Sequence[Turn],
    marks: Marks,
    *,
    budget: int,
    overhead_characters: int = 0,
    characters_per_token: float = CHARACTERS_PER_TOKEN,
) -> Marks:
    """Moves the marks until the projection fits three quarters of the budget, as far as it can.

    Returns the same marks when the projection is within the whole budget already.

    1. Tool results and long arguments go first, oldest first, the last four turns' excepted.
    2. The assistant's prose goes after them.
    3. Where the projection is over the whole budget even so, the results of the last four turns
       go too, the very last turn's excepted.
    """

    def size(turns: Sequence[Turn], overhead: int = 0) -> int:
        return estimate(turns, overhead, characters_per_token=characters_per_token)

    def saving(before: Marks, after: Marks, index: int) -> int:
        """Returns the tokens, rounded down, that one turn loses when a mark passes it."""
        larger, smaller = (_projected(turns[index], index, marks) for marks in (before, after))
        return max(size([larger]) - size([smaller]) - 1, 0)

    if size(project(turns, marks), overhead_characters) <= budget:
        return marks
    end = max(len(turns) - _PROTECTED_TURNS, 0)
    surplus = size(project(turns, marks), overhead_characters) - int(budget * _TARGET)
    results, prose = marks.results, marks.prose
    while surplus > 0 and results < end:
        surplus -= saving(Marks(results, prose), Marks(results + 1, prose), results)
        results += 1
    while surplus > 0 and prose < end:
        surplus -= saving(Marks(results, prose), Marks(results, prose + 1), prose)
        prose += 1
    while (
        results < len(turns) - 1
        and size(project(turns, Marks(results, prose)), overhead_characters) > budget
    ):
        results += 1
    return Marks(results, prose)


def _call_length(call: ToolCall) -> int:
    return len(call.name) + len(call.raw) + _length(call.arguments)


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(len(key) + _length(item) for key, item in value.items())
    if isinstance(value, list):
        return sum(_length(item) for item in value)
    return 4


def _without_results(turn: Turn) -> Turn:
    if isinstance(turn, ResultsTurn):
        return ResultsTurn(results=tuple(_elided(result) for result in turn.results))
    if isinstance(turn, AssistantTurn) and turn.calls:
        calls = tuple(
            msgspec.structs.replace(call, arguments=_short_arguments(call.arguments))
            for call in turn.calls
        )
        return msgspec.structs.replace(turn, calls=calls)
    return turn


def _elided(result: ToolResult) -> ToolResult:
    if len(result.text) < _SHORTEST_ELIDED:
        return result
    marker = f"[left out to save room: {len(result.text)} characters of {result.name}'s output]"
    return msgspec.structs.replace(result, text=marker)


def _short_arguments(arguments: dict[str, Any] | None) -> dict[str, Any] | None:
    if arguments is None:
        return None
    return {
        key: f"[left out to save room: {len(value)} characters]"
        if isinstance(value, str) and len(value) >= _SHORTEST_ELIDED
        else value
        for key, value in arguments.items()
    }


def _without_prose(turn: Turn) -> Turn:
    if not isinstance(turn, AssistantTurn) or len(turn.text) < _SHORTEST_ELIDED:
        return turn
    marker = f"[left out to save room: {len(turn.text)} characters of an earlier answer]"
    return msgspec.structs.replace(turn, text=marker)

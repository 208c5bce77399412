"""Fits a conversation into a model's window by leaving out the least of it. Pure.

What is left out is a projection: the stored history stays whole. A summary stands for the oldest
turns; of the others call ids are never touched, the last turns only where nothing else helps, and
of what the user wrote only what one window cannot hold. Marks only ever move forward, and move
well below the budget when they must, so that the beginning of the prompt, which caches live on,
rarely changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from services.agent.core.history import (
    AssistantTurn,
    ImagePart,
    ResultsTurn,
    ToolCall,
    Turn,
    UserTurn,
)
from services.agent.core.text import cut_middle
from services.agent.storage.projection import SHORTEST_ELIDED, Marks, project, projected

CHARACTERS_PER_TOKEN: Final = 3.5
"""Of a conversation, as long as no endpoint has said how many tokens it had."""
_TOKENS_PER_TURN = 8
_TOKENS_PER_IMAGE = 512
_RESERVE_TOKENS = 512
_DEFAULT_ANSWER_TOKENS = 2048
_PROTECTED_TURNS = 4
_TARGET = 0.75  # of the budget, once it is exceeded


@dataclass(frozen=True, slots=True)
class Room:
    """What a model's window leaves for a conversation.

    Attributes:
        budget: tokens of a whole prompt.
        overhead: characters of what is sent beside the turns.
        characters_per_token: as the endpoint counts.
        longest_text: characters of one user turn that are sent; None: all of it.
    """

    budget: int
    overhead: int = 0
    characters_per_token: float = CHARACTERS_PER_TOKEN
    longest_text: int | None = None

    @classmethod
    def of(
        cls, window: int, max_tokens: int | None, *, overhead: int, characters_per_token: float
    ) -> "Room":
        """Returns the room in a window of `tokens`; a prompt may take a quarter of it."""
        budget = prompt_budget(window, max_tokens)
        room = cls(budget, overhead, characters_per_token)
        longest = min(window // 4, room.tokens // 2)
        return cls(budget, overhead, characters_per_token, int(longest * room.steady))

    @property
    def tokens(self) -> int:
        """Tokens that are left for the turns."""
        return max(self.budget - int(self.overhead / self.characters_per_token), _RESERVE_TOKENS)

    @property
    def steady(self) -> float:
        """Characters per token in halves: what is cut by it is cut alike in the next round."""
        return int(self.characters_per_token * 2) / 2

    def size(self, turns: Sequence[Turn], marks: Marks) -> int:
        """Returns the tokens of a request with these turns."""
        return estimate(
            project(turns, marks, self.longest_text),
            self.overhead,
            characters_per_token=self.characters_per_token,
        )

    def holds(self, turns: Sequence[Turn], marks: Marks) -> bool:
        """Says whether a request with these turns fits."""
        return self.size(turns, marks) <= self.budget

    def squeezed(self, turns: Sequence[Turn]) -> list[Turn]:
        """Returns projected turns with the last results cut until they fit, the last of means."""
        last = turns[-1] if turns else None
        if not isinstance(last, ResultsTurn):
            return list(turns)
        size = estimate(turns, self.overhead, characters_per_token=self.characters_per_token)
        if size <= self.budget:
            return list(turns)
        others = size - estimate([last], characters_per_token=self.characters_per_token)
        left = max(self.budget - others - _TOKENS_PER_TURN, 0) * self.characters_per_token
        share = max(int(left / len(last.results)) - SHORTEST_ELIDED // 4, SHORTEST_ELIDED)
        results = tuple(
            msgspec.structs.replace(each, text=cut_middle(each.text, share))
            for each in last.results
        )
        return [*turns[:-1], ResultsTurn(results=results)]


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
    """Estimates tokens by their characters, and a little for every turn and picture.

    Reasoning counts behind the last prompt: before it endpoints are not sent any.
    """
    tokens = overhead_characters / characters_per_token
    users = (index for index, turn in enumerate(turns) if isinstance(turn, UserTurn))
    last_user = max(users, default=-1)
    for index, turn in enumerate(turns):
        tokens += _TOKENS_PER_TURN
        if isinstance(turn, AssistantTurn) and index > last_user:
            tokens += sum(len(each.text) for each in turn.thoughts) / characters_per_token
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
            tokens += sum(len(each.pictures) for each in turn.results) * _TOKENS_PER_IMAGE
    return int(tokens)


def advance(
    turns: Sequence[Turn], marks: Marks, room: Room, *, is_only_results: bool = False
) -> Marks:
    """Moves the marks until the projection fits three quarters of the budget, as far as it can.

    Returns the same marks when the projection is within the whole budget already.

    1. Tool results and long arguments go first, oldest first, the last four turns' excepted.
    2. The assistant's prose goes after them.
    3. Where the projection is over the whole budget even so, the last four turns lose both too,
       the very last turn excepted.

    Args:
        turns: the whole history.
        marks: as they are.
        room: that the projection has to fit.
        is_only_results: stop after the first step.
    """

    def saving(before: Marks, after: Marks, index: int) -> int:
        """Returns the tokens, rounded down, that one turn loses when a mark passes it."""
        larger, smaller = (
            estimate(
                [projected(turns[index], index, each)],
                characters_per_token=room.characters_per_token,
            )
            for each in (before, after)
        )
        return max(larger - smaller - 1, 0)

    size = room.size(turns, marks)
    if size <= room.budget:
        return marks
    end = max(len(turns) - _PROTECTED_TURNS, 0)
    surplus = size - int(room.budget * _TARGET)
    results, prose, summary = marks.results, marks.prose, marks.summary
    while surplus > 0 and results < end:
        surplus -= saving(Marks(results, prose), Marks(results + 1, prose), results)
        results += 1
    if is_only_results:
        return Marks(results, prose, summary)
    while surplus > 0 and prose < end:
        surplus -= saving(Marks(results, prose), Marks(results, prose + 1), prose)
        prose += 1
    last = len(turns) - 1
    while results < last and not room.holds(turns, Marks(results, prose, summary)):
        results += 1
    while prose < last and not room.holds(turns, Marks(results, prose, summary)):
        prose += 1
    return Marks(results, prose, summary)


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

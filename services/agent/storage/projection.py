"""A conversation as the model sees it: what is left out of the stored history, which stays whole.

Pure.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from services.agent.core.history import (
    AssistantTurn,
    ResultsTurn,
    TextPart,
    ToolResult,
    Turn,
    UserTurn,
)
from services.agent.core.text import cut_middle

SHORTEST_ELIDED = 256
"""Characters; what is shorter is not worth leaving out."""
_LONGEST_LIST = 1024
_SUMMARY_HEAD = "[The conversation before this point was too long, and this summary stands for it.]"
_SAID = "# What was done and decided"


class Summary(msgspec.Struct, frozen=True):
    """What stands for the oldest turns.

    Attributes:
        through: the index of the first turn that is still shown itself.
        said: the model's own summary; empty where it could give none.
        facts: what the agent knows without asking: tasks, files, open steps.
    """

    through: int
    said: str
    facts: str

    @property
    def turn(self) -> UserTurn:
        """The summary as the model reads it."""
        said = self.said or "(No summary could be made: look at the files that matter again.)"
        return UserTurn((TextPart(f"{_SUMMARY_HEAD}\n\n{self.facts}\n\n{_SAID}\n{said}"),))


class Marks(msgspec.Struct, frozen=True):
    """Up to which turn something is left out.

    Attributes:
        results: tool results and long arguments of turns before this index.
        prose: the assistant's own text of turns before this index.
        summary: stands for whole turns.
    """

    results: int = 0
    prose: int = 0
    summary: Summary | None = None

    @property
    def start(self) -> int:
        """The index of the first turn that no summary stands for."""
        return self.summary.through if self.summary else 0

    def summarised(self, summary: Summary) -> "Marks":
        """Returns the marks with a newer summary."""
        through = summary.through
        return Marks(max(self.results, through), max(self.prose, through), summary)

    def rewound(self, start: int) -> "Marks":
        """Returns the marks of a history that ends before an index.

        A summary of what was taken back would keep it.
        """
        kept = self.summary if self.start <= start else None
        return Marks(min(self.results, start), min(self.prose, start), kept)


def project(turns: Sequence[Turn], marks: Marks, longest_text: int | None = None) -> list[Turn]:
    """Returns the turns as the model sees them; those that endpoints refuse are not among them.

    Args:
        turns: the whole history.
        marks: what is left out of it.
        longest_text: most characters of one user turn, None for all of them.
    """
    shown = [
        projected(turn, index, marks, longest_text)
        for index, turn in enumerate(turns)
        if index >= marks.start and not (isinstance(turn, UserTurn) and turn.is_refused)
    ]
    return [marks.summary.turn, *shown] if marks.summary else shown


def projected(turn: Turn, index: int, marks: Marks, longest_text: int | None = None) -> Turn:
    """Returns one turn of the history as `project` shows it."""
    if isinstance(turn, UserTurn):
        return turn if longest_text is None else _cut(turn, longest_text)
    if index < marks.results:
        turn = _without_results(turn)
    return _without_prose(turn) if index < marks.prose else turn


def _cut(turn: UserTurn, longest: int) -> UserTurn:
    """Cuts the texts of a turn in their middle, each by its share."""
    total = sum(len(part.text) for part in turn.parts if isinstance(part, TextPart))
    if total <= longest:
        return turn
    parts = tuple(
        TextPart(cut_middle(part.text, len(part.text) * longest // total))
        if isinstance(part, TextPart)
        else part
        for part in turn.parts
    )
    return msgspec.structs.replace(turn, parts=parts)


def _without_results(turn: Turn) -> Turn:
    if isinstance(turn, ResultsTurn):
        return ResultsTurn(results=tuple(_elided(result) for result in turn.results))
    if isinstance(turn, AssistantTurn) and turn.calls:
        calls = tuple(
            msgspec.structs.replace(
                call, arguments=_short_arguments(call.arguments), raw=_short(call.raw)
            )
            for call in turn.calls
        )
        return msgspec.structs.replace(turn, calls=calls)
    return turn


def _elided(result: ToolResult) -> ToolResult:
    text = result.text
    if len(text) >= SHORTEST_ELIDED:
        text = f"[left out to save room: {len(text)} characters of {result.name}'s output]"
    if result.pictures:
        text += f"\n[left out to save room: {len(result.pictures)} pictures]"
    return msgspec.structs.replace(result, text=text, pictures=())


def _short_arguments(arguments: dict[str, Any] | None) -> dict[str, Any] | None:
    if arguments is None:
        return None
    return {
        key: _short(value) if isinstance(value, str) or len(repr(value)) >= _LONGEST_LIST else value
        for key, value in arguments.items()
    }


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    is_short = len(text) < SHORTEST_ELIDED
    return text if is_short else f"[left out to save room: {len(text)} characters]"


def _without_prose(turn: Turn) -> Turn:
    if not isinstance(turn, AssistantTurn):
        return turn
    text = turn.text
    if len(text) >= SHORTEST_ELIDED:
        text = f"[left out to save room: {len(text)} characters of an earlier answer]"
    return msgspec.structs.replace(turn, text=text, thoughts=())

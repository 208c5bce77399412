"""What output text means, piece by piece: the seam where tool-call formats and reasoning plug in.

A parser is fed text as it comes and says at once what it can be sure of. However the text is cut,
the pieces joined are the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from typing_extensions import override


@dataclasses.dataclass(frozen=True, slots=True)
class TextPiece:
    """Text of the answer."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class ReasoningPiece:
    """A piece of the model's reasoning, which clients see apart from the answer."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class ToolCallPiece:
    """A piece of a tool call; meanings as in cortex.v1.ToolCallDelta.

    `call_id` and `name` come with the first piece of each index; the `arguments_json` of all pieces
    of an index, joined, are valid JSON, unless the last one is `incomplete`: the call was cut, or
    cannot be read.
    """

    index: int
    call_id: str = ""
    name: str = ""
    arguments_json: str = ""
    repair: str = ""
    incomplete: bool = False


Piece = TextPiece | ReasoningPiece | ToolCallPiece


class ChatParser(Protocol):
    """Reads one generation's output. Does no I/O and never raises on what a model says."""

    @property
    def is_reasoning(self) -> bool:
        """The next text belongs to the model's reasoning, as far as is known."""
        ...

    @property
    def openings(self) -> Sequence[str]:
        """What an output that is a call begins with; empty where the parser knows none."""
        return ()

    def feed(self, text: str) -> Sequence[Piece]:
        """What is certain with this text; what might still turn out otherwise is held back."""
        ...

    def finish(self, *, is_cut: bool = False) -> Sequence[Piece]:
        """What was held back, now that nothing more comes.

        Args:
            is_cut: a limit or a stop string ended the output, not the model: what it was at is not
                what it meant to say, so a call that has no end yet stays open.
        """
        ...


class PlainParser(ChatParser):
    """Passes all output on as text of the answer."""

    @property
    @override
    def is_reasoning(self) -> bool:
        return False

    @override
    def feed(self, text: str) -> Sequence[Piece]:
        return (TextPiece(text),) if text else ()

    @override
    def finish(self, *, is_cut: bool = False) -> Sequence[Piece]:
        return ()


def held_back(text: str, marker: str) -> int:
    """How many characters at the end of the text may be the beginning of the marker."""
    for length in range(min(len(text), len(marker) - 1), 0, -1):
        if text.endswith(marker[:length]):
            return length
    return 0

"""What one request saw, and what that is called."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


class Outcome(enum.Enum):
    """How a request ended for the program that asked, behind all retries of its SDK."""

    WHOLE = "whole"
    REFUSED = "refused"  # an error response, and no answer
    TOLD = "cut, told"  # an answer that ended in an error frame
    CUT = "cut, not told"  # an answer whose connection ended
    UNREACHED = "nobody there"  # no connection, or one that ended before the answer began
    SILENT = "no end"  # neither an answer nor an error within the client's patience
    WRONG = "wrong text"  # other words than those of the model, some twice, or an early end


@dataclass(slots=True)
class Exchange:
    """One request and its answer.

    Attributes:
        kind: SDK, and whether it streams.
        expected: the text of the whole answer.
        began, ended: seconds on the monotonic clock; `ended` is 0 while it runs.
        is_open: whether an answer has begun: behind its head no SDK asks again.
        text: what came of it so far.
        first_piece, last_piece: when they came; 0 while none has.
        longest_gap: seconds between two pieces.
        outcome: None while it runs.
        detail: of what went wrong.
    """

    kind: str
    expected: str
    began: float
    ended: float = 0.0
    is_open: bool = False
    text: str = ""
    first_piece: float = 0.0
    last_piece: float = 0.0
    longest_gap: float = 0.0
    outcome: Outcome | None = None
    detail: str = ""

    def add(self, piece: str, now: float) -> None:
        """Another piece of a streamed answer."""
        self.first_piece = self.first_piece or now
        if self.last_piece:
            self.longest_gap = max(self.longest_gap, now - self.last_piece)
        self.last_piece = now
        self.text += piece

    def end(self, outcome: Outcome, now: float, detail: str = "") -> None:
        """Closes it; text that is not the model's is wrong, whatever else happened."""
        is_right = self.expected.startswith(self.text)
        if outcome is Outcome.WHOLE:
            is_right = self.text == self.expected
        self.outcome = outcome if is_right else Outcome.WRONG
        self.ended = now
        self.detail = detail if is_right else f"{detail} {_difference(self.text, self.expected)}"

    def __str__(self) -> str:
        name = self.outcome.value if self.outcome else "runs"
        seconds = f"{self.ended - self.began:.1f} s"
        return f"{self.kind}: {name} after {seconds}, {len(self.text)} characters: {self.detail}"


@dataclass(slots=True)
class Seen:
    """All that the clients of a run saw."""

    exchanges: list[Exchange] = field(default_factory=list)

    def counts(self) -> Counter[Outcome]:
        """How many ended how."""
        return Counter(one.outcome for one in self.exchanges if one.outcome is not None)

    def not_whole(self) -> list[Exchange]:
        """Those that did not get their answer."""
        return [one for one in self.exchanges if one.outcome not in {None, Outcome.WHOLE}]


def within(exchanges: Iterable[Exchange], since: float, until: float) -> list[Exchange]:
    """Those that ended in a span of time."""
    return [one for one in exchanges if one.outcome is not None and since <= one.ended < until]


def _difference(text: str, expected: str) -> str:
    """Where a text leaves what it should be, with some of both."""
    pairs = enumerate(zip(text, expected, strict=False))
    place = next((i for i, (a, b) in pairs if a != b), min(len(text), len(expected)))
    around = slice(max(0, place - 20), place + 20)
    return f"at {place} of {len(expected)}: {text[around]!r} for {expected[around]!r}"

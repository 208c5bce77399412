"""How much is tried at once after llama.cpp has refused a pass. Pure."""

from __future__ import annotations

from typing import Final

NARROW_STEPS: Final = 32
"""So many steps after a refusal streams are run one by one, before they are tried together."""
MOST_GIVEN_UP: Final = 8
"""So many streams in a row, each refused with a single token: the process itself is suspected."""


class Narrowing:
    """Runs streams apart for some steps, and with fewer tokens where that is refused too.

    One stream whose tokens are refused therefore does not end the others, and where memory is
    short a prompt is read in smaller pieces, which need less of it.
    """

    def __init__(self) -> None:
        self._steps_left = 0
        self._most: int | None = None
        self._given_up = 0

    @property
    def is_on(self) -> bool:
        """Streams are to be run one by one."""
        return self._steps_left > 0

    @property
    def is_hopeless(self) -> bool:
        """Nothing at all has run since `MOST_GIVEN_UP` streams were given up."""
        return self._given_up >= MOST_GIVEN_UP

    def begin(self) -> None:
        """A pass of several streams was refused, or a step of narrow ones begins."""
        if self._steps_left == 0:
            self._steps_left = NARROW_STEPS

    def bounded(self, count: int) -> int:
        """How many of a stream's tokens are tried."""
        return count if self._most is None else min(count, self._most)

    def note_refusal(self, count: int) -> int:
        """A stream was refused alone, with so many tokens. Returns: how many to try; 0: give up."""
        if count > 1:
            self._most = count // 2
            return self._most
        self._given_up += 1
        return 0

    def note_pass(self) -> None:
        """Something has run."""
        self._given_up = 0

    def end_step(self) -> None:
        """A step of narrow passes is over."""
        self._steps_left -= 1
        if self._steps_left == 0:
            self._most = None

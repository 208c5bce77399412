"""Smaller passes after llama.cpp has refused one: streams apart, then fewer tokens. Pure."""

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
        """True while streams are run one by one."""
        return self._steps_left > 0

    @property
    def is_hopeless(self) -> bool:
        """True if `MOST_GIVEN_UP` streams were given up and no pass has succeeded since."""
        return self._given_up >= MOST_GIVEN_UP

    def begin(self) -> None:
        """Starts running streams one by one, for the next `NARROW_STEPS` steps."""
        if self._steps_left == 0:
            self._steps_left = NARROW_STEPS

    def bounded(self, count: int) -> int:
        """How many of a stream's `count` tokens may be tried in one pass."""
        return count if self._most is None else min(count, self._most)

    def note_refusal(self, count: int) -> int:
        """Records that `count` tokens of one stream were refused.

        Returns: how many to try next; 0: give the stream up.
        """
        if count > 1:
            self._most = count // 2
            return self._most
        self._given_up += 1
        return 0

    def note_pass(self) -> None:
        """Records that a pass has succeeded."""
        self._given_up = 0

    def end_step(self) -> None:
        """A step of narrow passes is over."""
        self._steps_left -= 1
        if self._steps_left == 0:
            self._most = None

"""Remembers exceptions, so that a fault that repeats is not survived for ever. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final

WINDOW_SECONDS: Final = 60.0
MOST_REBUILDS: Final = 8
"""Within the window; one more means that the process itself is at fault."""
MOST_BROKEN_STEPS: Final = 3
"""Steps with broken logits in a row, after which the weights or the device are suspected."""


class FaultHistory:
    """Rebuilds, memory shortages and broken steps of one model."""

    def __init__(self) -> None:
        self._rebuilds: deque[float] = deque()
        self._shortages: deque[float] = deque()
        self._broken_steps = 0

    def note_rebuild(self, now: float) -> bool:
        """Notes a rebuild; True if there were too many lately."""
        return self._note(self._rebuilds, now) > MOST_REBUILDS

    def note_shortage(self, now: float) -> bool:
        """Notes that memory ran out; True if it did so before, lately."""
        return self._note(self._shortages, now) > 1

    def note_step(self, *, is_broken: bool) -> bool:
        """Notes a step; True if too many in a row had broken logits."""
        self._broken_steps = self._broken_steps + 1 if is_broken else 0
        return self._broken_steps >= MOST_BROKEN_STEPS

    @staticmethod
    def _note(times: deque[float], now: float) -> int:
        times.append(now)
        while now - times[0] > WINDOW_SECONDS:
            times.popleft()
        return len(times)

"""How long a place in the queue takes, from how long tasks took lately. Pure."""

from __future__ import annotations

from typing import Final

_WEIGHT: Final = 0.2
_LEAST_SECONDS: Final = 1.0


class Pace:
    """A moving average of task durations over a number of places."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._seconds: float | None = None

    def note(self, seconds: float) -> None:
        """Counts a task that ended well."""
        before = seconds if self._seconds is None else self._seconds
        self._seconds = before + _WEIGHT * (seconds - before)

    def seconds_until(self, position: int) -> float | None:
        """When the task with so many before it may start; None while nothing has ended yet."""
        if self._seconds is None:
            return None
        return max(_LEAST_SECONDS, self._seconds * (position + 1) / self._places)

"""How long tasks keep others from a place, and so how long those that wait will."""

from __future__ import annotations

from typing import Final

_WEIGHT: Final = 0.2
"""Share of the newest task in the average of durations."""
_LEAST_SECONDS: Final = 1.0
"""Shortest wait that is ever told."""


class WaitEstimate:
    """Estimates waiting times from a moving average of how long tasks ran."""

    def __init__(self, places: int) -> None:
        """Knows nothing yet.

        Args:
            places: how many tasks run together.
        """
        self._places = places
        self._seconds: float | None = None

    def note(self, seconds: float) -> None:
        """Adds a task's run time in seconds to the average."""
        before = seconds if self._seconds is None else self._seconds
        self._seconds = before + _WEIGHT * (seconds - before)

    @property
    def seconds_per_place(self) -> float | None:
        """Average seconds that a task runs, divided by the number of places; None: not known.

        So often does a place come free while all are taken.
        """
        return None if self._seconds is None else self._seconds / self._places

    def seconds_until(self, position: int) -> float | None:
        """Estimated wait of a task with so many before it; None before any task has ended."""
        if self._seconds is None:
            return None
        return max(_LEAST_SECONDS, self._seconds * (position + 1) / self._places)

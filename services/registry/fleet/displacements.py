"""Counts how often models evict each other in turn while both are wanted.

That two models take turns in one room is no harm: somebody has finished with one and asks for the
other. It is thrash when the displaced one is wanted again while the one that displaced it is still
wanted too: then each swap undoes the one before, and keeping either for a while serves both better.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, NamedTuple

# Times that two models displaced each other, until each is kept for the whole of its residency.
_ENOUGH: Final = 3.0
# Half of what was counted is forgotten within so many seconds.
_HALF_LIFE_SECONDS: Final = 60.0


class _Count(NamedTuple):
    times: float
    at: float


class Displacements:
    """Counts displacements by model; half of a count is forgotten every minute."""

    def __init__(self) -> None:
        self._displaced_by: dict[str, str] = {}
        self._counts: dict[str, _Count] = {}

    def note(self, model: str, by: str) -> None:
        """Notes that an instance of `model` is evicted to make room for the model `by`."""
        self._displaced_by[model] = by

    def take_displacer(self, model: str) -> str | None:
        """Returns for which model this one was last evicted, and forgets it; None for none."""
        return self._displaced_by.pop(model, None)

    def count(self, models: Iterable[str], now: float) -> None:
        """Counts one mutual eviction for each of these models."""
        for model in models:
            self._counts[model] = _Count(self._times(model, now) + 1.0, now)

    def share(self, model: str, since: float) -> float:
        """How much of its residency protects an instance, between 0 and 1.

        Args:
            model: of the instance.
            since: when the instance became ready; what is counted later counts in full.
        """
        return min(1.0, self._times(model, since) / _ENOUGH)

    def _times(self, model: str, now: float) -> float:
        found = self._counts.get(model)
        if found is None:
            return 0.0
        return found.times * math.exp2(-max(0.0, now - found.at) / _HALF_LIFE_SECONDS)

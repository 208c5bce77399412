"""How much of the devices' time each principal has had, over all models of one worker."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

NOBODY: Final = "(trial)"
"""Whose the first tokens of a load are: the load itself is charged, these would count twice."""

_MOST_PRINCIPALS: Final = 4096


class FairShares:
    """Device seconds by principal; the queues of all models choose by it whose turn it is.

    A turn counts as its estimate from the moment that it is given, and as what was measured from
    its end on, or as soon as that is more. Only the main thread touches it.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    @property
    def seconds(self) -> Mapping[str, float]:
        """Seconds that each principal has had; who is absent has had none."""
        return self._seconds

    def add(self, principal: str, seconds: float) -> None:
        """Adds seconds; negative ones correct an estimate that was too high."""
        if principal not in self._seconds and len(self._seconds) >= _MOST_PRINCIPALS:
            # A queue brings whoever comes to it up to its own floor, so nobody gains by it.
            self._seconds.clear()
        self._seconds[principal] = self._seconds.get(principal, 0.0) + seconds

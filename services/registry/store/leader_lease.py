"""The right to be the one registry that leads, for a while."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class LeaderLease:
    """What a store grants to one registry at a time.

    Attributes:
        epoch: grows with every change of leader, and travels with every order: neurons refuse an
            older one than the newest they know. 0 where there can be only one registry.
        until: on the monotonic clock; from then on another one may lead without our knowing.
    """

    epoch: int = 0
    until: float = float("inf")

    def holds(self, now: float) -> bool:
        """True while no other registry can have been granted the leadership; `now` is monotonic."""
        return now < self.until

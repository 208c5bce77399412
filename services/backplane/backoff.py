"""Exponential pauses between attempts: capped, and with jitter where many might try at once."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator


def pause(attempts: int, *, first: float, factor: float = 2.0, cap: float) -> float:
    """The pause before the next attempt, without jitter.

    Args:
        attempts: how many pauses there were before this one; 0 gives `first`.
        first: seconds of the first pause.
        factor: by how much each pause is longer than the one before.
        cap: seconds of the longest.

    Returns: seconds.
    """
    try:
        return min(cap, first * factor**attempts)
    except OverflowError:  # of the power: far beyond any cap
        return cap


def delays(
    *, first: float = 0.1, factor: float = 2.0, cap: float = 5.0, jitter: float = 0.2
) -> Iterator[float]:
    """Endless delays in seconds: first, first*factor, … up to cap, each varied by ±jitter.

    Make a new iterator after a success.
    """
    for attempts in itertools.count():
        spread = random.uniform(1 - jitter, 1 + jitter)  # noqa: S311 - not a secret
        yield pause(attempts, first=first, factor=factor, cap=cap) * spread

"""Capped exponential delays with jitter."""

from __future__ import annotations

import random
from collections.abc import Iterator


def delays(
    *, first: float = 0.1, factor: float = 2.0, cap: float = 5.0, jitter: float = 0.2
) -> Iterator[float]:
    """Endless delays in seconds: first, first*factor, … up to cap, each varied by ±jitter.

    Make a new iterator after a success.
    """
    delay = first
    while True:
        yield delay * random.uniform(1 - jitter, 1 + jitter)  # noqa: S311 - not a secret
        delay = min(cap, delay * factor)

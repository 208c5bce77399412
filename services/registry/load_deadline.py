"""How long a load may take: more for more bytes, and longer while it makes progress. Pure.

A fixed limit cuts off large models on slow disks, and leaves small ones hanging.
"""

from __future__ import annotations

from typing import Final

from services.registry.fleet.records import Progress

# The start of a worker, the first token and the neuron's own queue.
_BASE_SECONDS: Final = 120.0
# No disk or network in use is expected to be slower for long.
_SLOWEST_BYTES_PER_SECOND: Final = 10e6
# Silence that ends a load: a multiple of what the whole load usually takes, and no less than this.
_SILENCE_SECONDS: Final = 120.0
_SILENCE_FACTOR: Final = 3.0


def allowance(total_bytes: int, learned_seconds: float) -> float:
    """Seconds until a load must be over, unless it makes progress."""
    by_size = _BASE_SECONDS + total_bytes / _SLOWEST_BYTES_PER_SECOND
    return max(by_size, _SILENCE_FACTOR * learned_seconds)


def extended(
    deadline: float, now: float, old: Progress, new: Progress, learned_seconds: float
) -> float:
    """The deadline after a sign of life; only a sign that something moved extends it."""
    if new == old:
        return deadline
    return max(deadline, now + max(_SILENCE_SECONDS, learned_seconds))

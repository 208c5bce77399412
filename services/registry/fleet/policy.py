"""The rules that the fleet's owner has set: order of eviction, protections, longest waits."""

from __future__ import annotations

import dataclasses
import enum


class Strategy(enum.Enum):
    """Which instance is evicted first."""

    LRU = "lru"
    """The longest unused."""
    PRIORITY = "priority"
    """The lowest residency class; within it the longest unused."""


@dataclasses.dataclass(frozen=True, slots=True)
class Policy:
    """Settings and limits of placement, in seconds; `EvictionSettings` says what each means."""

    strategy: Strategy = Strategy.LRU
    minimum_residency: float = 5.0
    patience: float = 15.0
    drain_timeout: float = 3600.0
    handover: float = 2.0
    idle_timeout: float = 0.0
    defrag_after_cycles: int = 50
    abandoned_loads: str = "displaced"
    scale_up_after: float = 10.0
    max_wait: float = 600.0
    max_waiters: int = 10_000
    settle: float = 5.0

"""The rules that the fleet's owner has set: order of eviction, protections, longest waits."""

from __future__ import annotations

import dataclasses
import enum

from services.registry.settings import Settings


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


def policy_of(settings: Settings) -> Policy:
    """The policy that the `[eviction]` and `[registry]` sections ask for."""
    eviction, registry = settings.eviction, settings.registry
    return Policy(
        strategy=Strategy(eviction.strategy),
        minimum_residency=eviction.minimum_residency_seconds,
        patience=eviction.patience_seconds,
        drain_timeout=eviction.drain_timeout_seconds,
        handover=eviction.handover_seconds,
        idle_timeout=eviction.idle_timeout_seconds,
        defrag_after_cycles=eviction.defrag_after_cycles,
        abandoned_loads=eviction.abandoned_loads,
        scale_up_after=eviction.scale_up_after_seconds,
        max_wait=registry.max_wait_seconds,
        max_waiters=registry.max_waiters,
        settle=registry.settle_seconds,
    )

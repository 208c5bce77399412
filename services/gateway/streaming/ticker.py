"""One ticker for everything that is open: keep-alives, heartbeats, silence of neurons."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

import structlog

from services.backplane.errors import FleetError

log = structlog.get_logger()


class Watched(Protocol):
    """Something that wants to be looked at several times a second."""

    def tick(self, now: float, slack: float) -> None:
        """Looks after itself. `now` is the monotonic clock, `slack` the time between two ticks."""
        ...

    def end(self, error: FleetError) -> None:
        """Ends with an error, soon."""
        ...


class Ticker:
    """Ticks every watched thing from one task: no timers per stream."""

    def __init__(self, *, keepalive_seconds: float) -> None:
        # four looks per keep-alive, so that no silence is longer than promised
        self._slack = keepalive_seconds / 4
        self._watched: set[Watched] = set()

    def __len__(self) -> int:
        return len(self._watched)

    def watch(self, watched: Watched) -> None:
        """Ticks it until it is forgotten."""
        self._watched.add(watched)

    def forget(self, watched: Watched) -> None:
        """Ticks it no more."""
        self._watched.discard(watched)

    def end_all(self, error: FleetError) -> None:
        """Ends everything that is watched."""
        for watched in tuple(self._watched):
            watched.end(error)

    async def run(self) -> None:
        """Ticks until cancelled."""
        while True:
            await asyncio.sleep(self._slack)
            now = time.monotonic()
            for watched in tuple(self._watched):
                try:
                    watched.tick(now, self._slack)
                except Exception:  # the root of a task that all streams share
                    log.exception("liveness.tick_failed")
                    self._watched.discard(watched)

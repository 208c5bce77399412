"""One timer for all open requests: keep-alives, heartbeats, and neurons that send nothing."""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from services.backplane.errors import FleetError
from services.backplane.process.faults import Faults


class Watched(Protocol):
    """Something that is checked several times a second."""

    __slots__ = ()

    is_unread: bool
    """Its request has not come whole: nothing has been begun for it."""

    def tick(self, now: float, slack: float) -> None:
        """Checks itself.

        Args:
            now: seconds on the monotonic clock.
            slack: seconds between two ticks.
        """
        ...

    def end(self, error: FleetError) -> None:
        """Ends soon, with this error."""
        ...


class Ticker:
    """Ticks everything that is watched from one task, instead of timers per stream.

    Args:
        keepalive_seconds: it ticks four times as often, so that no silence is longer than this.
        faults: notes what a tick raises; what raised is ended, and nothing else.
    """

    def __init__(self, *, keepalive_seconds: float, faults: Faults) -> None:
        self._faults = faults
        self._slack = keepalive_seconds / 4
        self._watched: set[Watched] = set()
        self._end_unread: FleetError | None = None

    def __len__(self) -> int:
        return len(self._watched)

    def watched(self) -> tuple[Watched, ...]:
        """All that is ticked now."""
        return tuple(self._watched)

    def watch(self, watched: Watched) -> None:
        """Watches an answer: it is ticked at every turn of `run`, until `forget`."""
        self._watched.add(watched)

    def forget(self, watched: Watched) -> None:
        """Stops watching an answer that has ended."""
        self._watched.discard(watched)

    def end_unread(self, error: FleetError) -> None:
        """Ends requests whose bodies have not come whole, now and from now on."""
        self._end_unread = error
        for watched in tuple(self._watched):
            if watched.is_unread:
                watched.end(error)

    def end_all(self, error: FleetError) -> None:
        """Ends everything that is watched."""
        for watched in tuple(self._watched):
            watched.end(error)

    async def run(self) -> None:
        """Ticks until cancelled."""
        while True:
            await asyncio.sleep(self._slack)
            now = time.monotonic()
            if self._end_unread is not None:
                self.end_unread(self._end_unread)
            for watched in tuple(self._watched):
                try:
                    watched.tick(now, self._slack)
                except Exception as error:  # noqa: BLE001 - the root of a task that all share
                    self._watched.discard(watched)
                    with self._faults.contained("ticker"):
                        watched.end(self._faults.note("ticker", error))

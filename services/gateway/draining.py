"""The end of a gateway: who is told what, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from services.backplane.errors import FleetError, Reason
from services.backplane.first_ended import first_ended
from services.backplane.process.faults import Faults
from services.backplane.process.lifecycle import Shutdown
from services.gateway.server import HttpServer
from services.gateway.streaming.ticker import Ticker

# What is left of the drain for streams to say that they were cut.
_FAREWELL_SECONDS: Final = 1.0


class GatewayShutdown:
    """Ends a gateway: refuses new requests, lets answers go on for a while, then ends them."""

    def __init__(
        self,
        server: HttpServer,
        leave: Callable[[FleetError], None],
        ticker: Ticker,
        faults: Faults,
        *,
        handover_seconds: float,
    ) -> None:
        """Does nothing yet.

        Args:
            server: whose answers may go on for its `drain_seconds`.
            leave: told first: no new work, and pages of the console end.
            ticker: ends requests that have not come whole, which their clients may never do,
                unless a successor takes the new ones; and what still runs shortly before the end.
            faults: once they have broken the gateway, it has to end.
            handover_seconds: how long answers may go on where there is a successor.
        """
        self._server = server
        self._leave = leave
        self._ticker = ticker
        self._faults = faults
        self._handover_seconds = handover_seconds
        self._is_succeeded = False

    def allow_handover_time(self) -> None:
        """Lets running requests take `handover_seconds` at the end: a successor serves new ones."""
        self._is_succeeded = True
        self._server.drain_seconds = self._handover_seconds

    async def run(self, shutdown: Shutdown) -> None:
        """Waits for the end to be requested, then carries it out."""
        await first_ended(shutdown.wait(), self._faults.broken.wait())
        if self._faults.broken.is_set():
            shutdown.request("a task that it cannot do without has ended")
        error = FleetError(
            Reason.SHUTTING_DOWN, "The gateway is shutting down.", retry_after_seconds=5
        )
        self._leave(error)
        if not self._is_succeeded:
            self._ticker.end_unread(error)
        await asyncio.sleep(max(0.0, self._server.drain_seconds - _FAREWELL_SECONDS))
        self._ticker.end_all(error)

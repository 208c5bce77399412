"""`/ui/events`: what open consoles are shown, as it changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

from services.backplane.errors import FleetError, Reason
from services.backplane.first_ended import first_ended
from services.gateway.api.operators.call import OperatorCall, event_bytes
from services.gateway.console.feed import Feed
from services.gateway.console.ledger import RequestLedger

# A sign of life, where nothing else is sent.
BEAT_SECONDS: Final = 10.0
# A reader with so much unread is sent nothing more, and a snapshot once it has read that.
_BEHIND_BYTES: Final = 64 << 10
# A reader that stays behind for so long is given up.
_MOST_SECONDS_BEHIND: Final = 60.0
# Between looks at whether it has read a piece.
_GLANCE_SECONDS: Final = 0.01

_BEAT: Final = event_bytes("beat", b"{}")


class EventStreams:
    """The open `/ui/events`.

    Args:
        feed: what is shown.
        ledger: the last requests.
        visitor: what a reader is told of itself, by its call.

    Attributes:
        count: how many there are.
    """

    def __init__(
        self, feed: Feed, ledger: RequestLedger, visitor: Callable[[OperatorCall], dict[str, Any]]
    ) -> None:
        self._feed = feed
        self._ledger = ledger
        self._visitor = visitor
        self.count = 0

    async def serve(self, call: OperatorCall) -> None:
        """Streams one snapshot and then every change, until the reader leaves."""
        self._feed.refresh()
        call.begin_events()
        self.count += 1
        try:
            await self._follow(call)
        finally:
            self.count -= 1

    async def _follow(self, call: OperatorCall) -> None:
        number, requests = -1, 0
        behind_since: float | None = None
        while True:
            version = self._feed.changes.version
            call.recheck()  # a key that was taken back ends the streams that it has opened
            if call.response.buffered() > _BEHIND_BYTES:
                number = -1
                behind_since = behind_since or time.monotonic()
                if time.monotonic() - behind_since > _MOST_SECONDS_BEHIND:
                    raise FleetError(Reason.SLOW_READER, "The page reads nothing.")
            else:
                behind_since = None
                data = self._feed.since(number, requests) if number >= 0 else None
                if data is None:
                    data = self._feed.snapshot(self._visitor(call))
                number, requests = self._feed.number, self._ledger.count
                await _write(call, data)
            moved = await first_ended(self._feed.changes.after(version), seconds=BEAT_SECONDS)
            if moved is None and behind_since is None:
                call.response.write(_BEAT)


async def _write(call: OperatorCall, data: bytes) -> None:
    """Writes in pieces as they are read: a large fleet's snapshot is more than may lie unread.

    Raises:
        FleetError: SLOW_READER: a piece was not read in time.
    """
    for at in range(0, len(data), _BEHIND_BYTES):
        until = time.monotonic() + _MOST_SECONDS_BEHIND
        while call.response.buffered() > _BEHIND_BYTES:
            if time.monotonic() > until:
                raise FleetError(Reason.SLOW_READER, "The page reads nothing.")
            await asyncio.sleep(_GLANCE_SECONDS)
        call.response.write(data[at : at + _BEHIND_BYTES])

"""Finds out whether a peer that sends nothing is still there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

# The same as on our gRPC channels: a dead peer is found within the sum of these.
_QUIET_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 5.0


class Keepalive:
    """Pings after 10 s without data, and gives up where nothing comes within 5 s more.

    Args:
        ping: sends a ping.
        give_up: closes the connection.

    Attributes:
        heard: set to True by the owner whenever data comes.
    """

    __slots__ = ("_give_up", "_loop", "_ping", "_timer", "heard")

    def __init__(self, *, ping: Callable[[], None], give_up: Callable[[], None]) -> None:
        self._ping = ping
        self._give_up = give_up
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.heard = True

    def start(self) -> None:
        """Starts the timer."""
        self.heard = False
        self._timer = self._loop.call_later(_QUIET_SECONDS, self._quiet)

    def stop(self) -> None:
        """Stops the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _quiet(self) -> None:
        if self.heard:
            self.start()
        else:
            self._timer = self._loop.call_later(_ANSWER_SECONDS, self._judge)
            self._ping()

    def _judge(self) -> None:
        if self.heard:
            self.start()
        else:
            self._give_up()

"""Finds out that a peer which says nothing is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

# As the channels of gRPC have it: a dead peer is found within these two.
_QUIET_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 5.0


class Keepalive:
    """Asks after a while of silence, and gives up where no answer comes.

    Attributes:
        heard: to be set with every sign of life.
    """

    __slots__ = ("_give_up", "_loop", "_ping", "_timer", "heard")

    def __init__(self, *, ping: Callable[[], None], give_up: Callable[[], None]) -> None:
        self._ping = ping
        self._give_up = give_up
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.heard = True

    def start(self) -> None:
        """Begins to listen."""
        self.heard = False
        self._timer = self._loop.call_later(_QUIET_SECONDS, self._quiet)

    def stop(self) -> None:
        """Nothing is asked any more."""
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

"""One timer of a connection that is cheap to move."""

import asyncio
from collections.abc import Callable


class Deadline:
    """Calls back once when the time set last has passed.

    Moving it later or clearing it does not touch the loop's timers: the pending one looks
    again when it fires. A request therefore costs no timer at all.
    """

    __slots__ = ("_armed_for", "_callback", "_due", "_handle", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._due: float | None = None
        self._armed_for = 0.0
        self._handle: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        """Moves the deadline to that many seconds from now."""
        self._due = self._loop.time() + seconds
        if self._handle is None:
            self._arm(self._due)
        elif self._due < self._armed_for:
            self._handle.cancel()
            self._arm(self._due)

    def clear(self) -> None:
        """Stops it until it is set again."""
        self._due = None

    def cancel(self) -> None:
        """Stops it for good and frees the callback."""
        self._due = None
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self, due: float) -> None:
        self._armed_for = due
        self._handle = self._loop.call_at(due, self._fire)

    def _fire(self) -> None:
        self._handle = None
        due = self._due
        if due is None:
            return
        if due > self._loop.time():
            self._arm(due)
            return
        self._due = None
        self._callback()

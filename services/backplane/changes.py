"""A counter that can be waited on: how readers follow state that one writer owns."""

from __future__ import annotations

import asyncio


class Changes:
    """Counts changes. Readers see the newest state, not each step on the way to it."""

    def __init__(self) -> None:
        self._version = 0
        self._moved = asyncio.Event()

    @property
    def version(self) -> int:
        """The number of changes so far; it only grows."""
        return self._version

    def bump(self) -> None:
        """Counts a change, and wakes all who wait for one."""
        self._version += 1
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def after(self, version: int) -> int:
        """Returns the version as soon as it is beyond the given one."""
        while self._version <= version:
            await self._moved.wait()
        return self._version

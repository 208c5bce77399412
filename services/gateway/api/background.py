"""Background generations: they go on after their request has been answered."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from services.backplane.errors import FleetError, Reason


class DetachedTasks:
    """Owns the tasks of background generations.

    Args:
        most: how many may run at once; more are refused.
    """

    def __init__(self, *, most: int = 64) -> None:
        self._most = most
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Runs it as a task, until it ends or the gateway does.

        Raises:
            FleetError: QUEUE_FULL: too many run already.
        """
        if len(self._tasks) >= self._most:
            work.close()
            raise FleetError(
                Reason.QUEUE_FULL,
                f"{self._most} generations run in the background already.",
                retry_after_seconds=5,
            )
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Cancels all of them and waits for their ends."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

"""A caller's steps on their way to its stream: a new one replaces one that was not read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from typing_extensions import override

from services.backplane.errors import FleetError
from services.registry.placement.progress import Placed, PlacementWaiter, Step


class StepStream(PlacementWaiter):
    """One caller's wait, read as an async iterator by the call that serves it."""

    def __init__(self) -> None:
        self._step: Step | None = None
        self._error: FleetError | None = None
        self._news = asyncio.Event()

    @override
    def on_step(self, step: Step) -> None:
        self._step = step
        self._news.set()

    @override
    def on_failed(self, error: FleetError) -> None:
        self._error = error
        self._news.set()

    async def steps(self) -> AsyncIterator[Step]:
        """The steps, `Placed` being the last. A step that was not read in time is left out.

        Raises:
            FleetError: the wait ended without a placement.
        """
        while True:
            await self._news.wait()
            self._news.clear()
            if self._error is not None:
                raise self._error
            step = self._step
            assert step is not None
            yield step
            if isinstance(step, Placed):
                return

"""One caller's steps on their way to its stream: the newest replaces one that was not read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from services.backplane.errors import FleetError
from services.registry.placement.progress import Placed, Step


class StepStream:
    """A `PlacementWaiter` that is read as an async iterator."""

    def __init__(self) -> None:
        self._step: Step | None = None
        self._error: FleetError | None = None
        self._news = asyncio.Event()

    def on_step(self, step: Step) -> None:
        """Takes a step."""
        self._step = step
        self._news.set()

    def on_failed(self, error: FleetError) -> None:
        """Takes the end."""
        self._error = error
        self._news.set()

    async def steps(self) -> AsyncIterator[Step]:
        """The steps until `Placed`.

        Raises:
            FleetError: it ends without.
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

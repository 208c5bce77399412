"""Generations as their instance knows them: they are resumed, ended, or suspected."""

from __future__ import annotations

import asyncio
from typing import Protocol

from services.backplane.errors import FleetError
from services.backplane.timeouts import timeout
from services.neuron.supervisor.link import WorkerLink
from services.neuron.supervisor.restart_policy import RequestDeaths


class Suspicion:
    """Whether workers die of one request, and its turn to be the only one of which they may."""

    def __init__(self) -> None:
        self._deaths = RequestDeaths()
        self._turn_is_over = asyncio.Event()

    @property
    def is_strong(self) -> bool:
        """Two workers died with it and others inside: each of these is tried by itself."""
        return self._deaths.is_suspect

    def note_death(self, made: int, *, is_alone: bool) -> bool:
        """Records a death, which ends its turn. Returns: whether the request may go on.

        Args:
            made: tokens of the answer until then.
            is_alone: neither another request nor a load was in the process.
        """
        self._turn_is_over.set()
        return self._deaths.note(made, is_alone=is_alone)

    def note_made(self, made: int) -> None:
        """Records how many tokens the answer has; its turn ends where they clear it."""
        if self._deaths.is_past(made):
            self._turn_is_over.set()

    def note_end(self) -> None:
        """The request is over, and so is its turn."""
        self._turn_is_over.set()

    async def turn(self, seconds: float) -> None:
        """Returns once it is past the place, over or its worker dead.

        After so long without any of it, the workers died of something else.
        """
        try:
            async with timeout(seconds):
                await self._turn_is_over.wait()
        except TimeoutError:
            self._deaths.acquit()

    def begin_turn(self) -> None:
        """It goes on now."""
        self._turn_is_over.clear()


class RunningGeneration(Protocol):
    """What an instance does with its generations: resume them on a new worker, or end them.

    Attributes:
        suspicion: whether workers die of it.
    """

    suspicion: Suspicion

    def resume(self, link: WorkerLink) -> None:
        """Goes on in the worker's new process, behind the tokens made so far."""
        ...

    def fail(self, error: FleetError) -> None:
        """Ends it with an error; a second call does nothing."""
        ...

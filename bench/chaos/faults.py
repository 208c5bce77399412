"""What is done to the fleet: one fault after the other, each undone before the next."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import psutil

from bench.chaos.parts import NEURONS, SERVICES, Parts

KILL, STOP, CUT = "killed", "stopped", "cut off"
WORKERS: Final = tuple(f"worker of {name}" for name in NEURONS)
POSTGRES: Final = "postgres"

Undo = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        what: KILL (and started again), STOP (and continued), CUT (and connected again).
        whom: a service, a worker, or the database.
    """

    what: str
    whom: str

    def __str__(self) -> str:
        return f"{self.whom} {self.what}"

    async def begin(self, parts: Parts) -> Undo:
        """Does it; returns what undoes it."""
        if self.what == CUT:
            return _cut(parts, self.whom)
        if self.whom in WORKERS:
            return await _worker(parts, self)
        service = parts.service(self.whom)
        if self.what == KILL:
            await asyncio.to_thread(service.kill)
            return lambda: asyncio.to_thread(service.start)
        return _stop(service.process.pid)


def every() -> list[Fault]:
    """Each process in turn: killed, stopped and cut off; neighbours come apart."""
    faults = [Fault(what, whom) for what in (KILL, STOP, CUT) for whom in SERVICES]
    faults += [Fault(what, whom) for what in (KILL, STOP) for whom in WORKERS]
    return [*faults, Fault(CUT, POSTGRES)]


def _cut(parts: Parts, whom: str) -> Undo:
    parts.cut(whom)

    async def heal() -> None:
        parts.heal()

    return heal


async def _worker(parts: Parts, fault: Fault) -> Undo:
    """A dead worker is replaced by its neuron: nothing is left to undo."""
    neuron = NEURONS[WORKERS.index(fault.whom)]
    process = await asyncio.to_thread(parts.worker, neuron)
    if process is None:
        return _nothing
    if fault.what == KILL:
        process.kill()
        return _nothing
    return _stop(process.pid)


async def _nothing() -> None:
    pass


def _stop(pid: int) -> Undo:
    os.kill(pid, signal.SIGSTOP)

    async def go_on() -> None:
        if psutil.pid_exists(pid):
            os.kill(pid, signal.SIGCONT)

    return go_on

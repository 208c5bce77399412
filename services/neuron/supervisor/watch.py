"""Watches one worker process from its start: ends it when it misbehaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from services.backplane.errors import FleetError
from services.backplane.process.faults import Faults
from services.neuron.engine_api.frames import Hello
from services.neuron.supervisor.link import WorkerLink
from services.neuron.supervisor.process import WorkerProcess
from services.neuron.supervisor.restart_policy import HealthLimits, WorkerHealth

_GLANCE_SECONDS: Final = 0.5
# A glance that comes so late tells of this process: it was stopped, or its machine was asleep.
_ABSENT_SECONDS: Final = 5.0


class WorkerWatch:
    """Looks at one process while it lives.

    Args:
        process: which.
        link: what it says.
        limits: how long it may be silent or load without progress, and its memory.
        start_seconds: how long it may take to be ready.
        load_progressed_at: when its load went on last, monotonic seconds.
        faults: told of exceptions.
    """

    def __init__(
        self,
        process: WorkerProcess,
        link: WorkerLink,
        *,
        limits: HealthLimits,
        start_seconds: float,
        load_progressed_at: Callable[[], float],
        faults: Faults,
    ) -> None:
        self._process = process
        self._link = link
        self._limits = limits
        self._start_seconds = start_seconds
        self._load_progressed_at = load_progressed_at
        self._faults = faults

    async def run(self, on_hello: Callable[[Hello], None]) -> None:
        """Ends the process when it misbehaves, and when it cannot be watched.

        Args:
            on_hello: lets the process in, once it has said hello.
        """
        try:
            await self._watch_over(on_hello)
        except Exception as error:  # noqa: BLE001 - a process that nobody watches must not go on
            self._faults.note("worker.watch", error)
            self._process.kill("it could not be watched any more")

    async def _watch_over(self, on_hello: Callable[[Hello], None]) -> None:
        process, link = self._process, self._link
        try:
            hello = await asyncio.wait_for(asyncio.shield(link.hello), self._start_seconds)
        except TimeoutError:
            process.kill(f"it was not ready in {self._start_seconds:.0f} s", dump=True)
            return
        except FleetError:  # dead already
            return
        on_hello(hello)
        awake_since = glanced = time.monotonic()
        while True:
            await asyncio.sleep(_GLANCE_SECONDS)
            now = time.monotonic()
            if now - glanced > _ABSENT_SECONDS:
                awake_since = now  # what the worker said meanwhile waits to be read
            glanced = now
            health = WorkerHealth(
                silent_seconds=now - max(process.last_heard, awake_since),
                resident_bytes=link.resident_bytes,
                is_loading=link.is_loading,
                load_silent_seconds=now - max(self._load_progressed_at(), awake_since),
            )
            complaint = self._limits.complaint(health)
            if complaint is not None:
                doing = f" (it was {link.busy_with})" if link.busy_with else ""
                process.kill(complaint + doing, dump=True)
                return

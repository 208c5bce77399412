"""Ends a process whose event loop stands still, and tells systemd of one that does not.

An event loop that is held up serves nobody, answers no health check and hears no signal: only
another thread can see it. Source of the protocol: sd_notify(3), systemd.service(5) `WatchdogSec`.
"""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Generator
from typing import Final

from services.backplane.process.lifecycle import EX_SOFTWARE
from services.backplane.process.service_manager import notify

_GLANCE_SECONDS: Final = 0.5


def end_with_stacks(silent_seconds: float) -> None:
    """Writes all stacks (names of functions and lines, no values) and ends the process."""
    sys.stderr.write(f"cortex: the event loop stood still for {silent_seconds:.0f} s\n")
    faulthandler.dump_traceback(all_threads=True)
    sys.stderr.flush()
    os._exit(EX_SOFTWARE)


@contextlib.contextmanager
def watching(
    stall_seconds: float, *, on_stall: Callable[[float], None] = end_with_stacks
) -> Generator[None]:
    """Watches the running event loop from a thread while the context is open.

    Args:
        stall_seconds: longest time that one callback may take.
        on_stall: called by the thread, once, with the seconds that the loop has been silent.
    """
    dog = _Watchdog(asyncio.get_running_loop(), stall_seconds, on_stall)
    dog.start()
    try:
        yield
    finally:
        dog.stop()


class _Watchdog:
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        stall_seconds: float,
        on_stall: Callable[[float], None],
    ) -> None:
        self._loop = loop
        self._stall_seconds = stall_seconds
        self._on_stall = on_stall
        self._beat_at = time.monotonic()
        self._beat: asyncio.TimerHandle | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        self._on_beat()
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        if self._beat is not None:
            self._beat.cancel()

    def _on_beat(self) -> None:
        self._beat_at = time.monotonic()
        self._beat = self._loop.call_later(_GLANCE_SECONDS, self._on_beat)

    def _watch(self) -> None:
        looked_at = time.monotonic()
        while not self._over.wait(_GLANCE_SECONDS):
            now = time.monotonic()
            if now - looked_at > 2 * _GLANCE_SECONDS + 1:
                self._beat_at = now  # the whole process was stopped or starved, not the loop alone
            looked_at = now
            silent = now - self._beat_at
            if silent > self._stall_seconds:
                self._on_stall(silent)
                return
            if silent < 2 * _GLANCE_SECONDS + 1:
                notify("WATCHDOG=1")

"""How many threads a forward pass computes with: as many as find a core for themselves."""

from __future__ import annotations

import os
import time
from typing import Final

import psutil

from services.neuron.engines.llamacpp.library.library import Library

_WINDOW_SECONDS: Final = 0.5
_STALE_SECONDS: Final = 2.0
_SPARE: Final = 0.25
_SHORT: Final = 0.5


def thread_count(now: int, *, most: int, cores: float) -> int:
    """Chooses how many threads are to compute. Pure.

    All threads of a pass meet behind every operation, so one that shares its core with a neighbour
    keeps the others waiting: fewer are faster then.

    1. Where the threads are more than half a core short, as many compute as there are cores.
    2. Where nearly a whole core more is left (`_SPARE` of it may be used), it is taken.
    3. In between nothing changes. Never more than `most`, never less than one.

    Args:
        now: threads so far.
        most: threads where nobody else uses the machine.
        cores: that were not used by others lately; see `FreeCores`.
    """
    if cores + _SHORT < now:
        return max(1, round(cores))
    if cores + _SPARE >= now + 1:
        return max(now, min(most, int(cores + _SPARE)))
    return now


class FreeCores:
    """How many cores are left for this process: those that are idle, and those that it uses.

    What runs with a lower priority (`nice`) makes room for it, and does not count.
    """

    def __init__(self) -> None:
        self._at = float("-inf")
        self._free_seconds = 0.0

    def measure(self) -> float | None:
        """Cores left on average since the last look; None where that was just now or long ago."""
        now = time.monotonic()
        passed = now - self._at
        if passed < _WINDOW_SECONDS:
            return None
        before, self._free_seconds = self._free_seconds, _free_seconds()
        self._at = now
        return (self._free_seconds - before) / passed if passed < _STALE_SECONDS else None


def _free_seconds() -> float:
    """Seconds since some time in the past, of all cores that this process may use."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    kinds = ["idle", "iowait"]
    if os.getpriority(os.PRIO_PROCESS, 0) <= 0:
        kinds.append("nice")
    free = time.process_time()
    for number, times in enumerate(psutil.cpu_times(percpu=True)):
        if allowed is None or number in allowed:
            free += sum(getattr(times, kind, 0.0) for kind in kinds)
    return free


class Threads:
    """Gives a context as many threads as `thread_count` chooses.

    Args:
        library: llama.cpp.
        context: the `llama_context *`, which computes with `most` threads now.
        most: threads where nobody else uses the machine; with one there is nothing to choose.
    """

    def __init__(self, library: Library, *, context: int, most: int) -> None:
        self._library = library
        self._context = context
        self._most = self._now = most
        self._cores = FreeCores()

    def note_pass(self) -> None:
        """Takes note of a forward pass; the next one may be computed by more threads or fewer."""
        if self._most == 1:
            return
        cores = self._cores.measure()
        if cores is None:
            return
        count = thread_count(self._now, most=self._most, cores=cores)
        if count != self._now:
            self._now = count
            self._library.set_n_threads(self._context, count, count)

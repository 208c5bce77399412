"""Tries made-up inputs for some seconds, and makes what fails as small as it can."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterable
from random import Random
from typing import Any, Final

import psutil

from tests.system.local_fleet import RunningFleet

SECONDS: Final = float(os.environ.get("CORTEX_FUZZ_SECONDS", "30")) / 5
SEED: Final = os.environ.get("CORTEX_FUZZ_SEED", "1")
_MOST_FINDINGS: Final = 5
_SMALLER_SECONDS: Final = 10.0
_MOST_GROWTH_BYTES: Final = 100 * 2**20


def search(
    make: Callable[[Random], Any],
    problem: Callable[[Any], str],
    smaller: Callable[[Any], Iterable[Any]],
) -> None:
    """Fails with the seed and the smallest input of each different problem.

    Args:
        make: an input; the same for the same random numbers.
        problem: what is wrong with what an input led to; empty where nothing is. Inputs with the
            same words count as one finding.
        smaller: simpler variants of an input.
    """
    found: dict[str, Any] = {}
    until = time.monotonic() + SECONDS
    count = 0
    while time.monotonic() < until and len(found) < _MOST_FINDINGS:
        made = make(Random(f"{SEED}/{count}"))
        count += 1
        words = problem(made)
        if words and words not in found:
            found[words] = _smallest(made, words, problem, smaller)
    sys.stderr.write(f"{count} inputs in {SECONDS:.0f} s, seed {SEED}: {len(found)} findings\n")
    assert not found, f"seed {SEED}:\n" + "\n".join(f"{key}\n  {found[key]!r}" for key in found)


def _smallest(
    made: Any,
    words: str,
    problem: Callable[[Any], str],
    smaller: Callable[[Any], Iterable[Any]],
) -> Any:
    until = time.monotonic() + _SMALLER_SECONDS
    while True:
        for less in smaller(made):
            if time.monotonic() > until:
                return made
            if problem(less) == words:
                made = less
                break
        else:
            return made


class Watch:
    """What a fleet's logs say, and how much memory its processes take."""

    def __init__(self, fleet: RunningFleet) -> None:
        self._fleet = fleet
        self._read = {path: path.stat().st_size for path in self._logs()}
        self._sizes: dict[str, int] = {}

    def traceback(self) -> str:
        """Where a traceback ends that was logged since the last call; empty without one."""
        for path in self._logs():
            with path.open("rb") as file:
                file.seek(self._read.get(path, 0))
                told = file.read().decode(errors="replace")
                self._read[path] = file.tell()
            for line in told.splitlines():
                if '"exception":' in line or "Traceback (most recent" in line:
                    return f"a traceback in the log of {path.stem}: {_raised(line)}"
        return ""

    def settle(self) -> None:
        """Takes the memory of now for what the fleet needs."""
        self._sizes = self._memory()

    def check_memory(self) -> None:
        """Fails where a process has grown since by more than it may."""
        sizes = self._memory()
        told = [f"{name} {self._sizes.get(name, 0) >> 20} → {sizes[name] >> 20}" for name in sizes]
        sys.stderr.write(f"resident MiB: {', '.join(told)}\n")
        for name, size in sizes.items():
            grown = size - self._sizes.get(name, size)
            assert grown < _MOST_GROWTH_BYTES, f"{name} has grown by {grown / 2**20:.0f} MiB"

    def _logs(self) -> list[Any]:
        return sorted((self._fleet.data_dir / "logs").glob("*.log"))

    def _memory(self) -> dict[str, int]:
        processes: dict[str, psutil.Process] = {
            name: self._fleet.child(name) for name in ("gateway", "registry", "neuron")
        }
        return {name: process.memory_info().rss for name, process in processes.items()}


def _raised(line: str) -> str:
    """What a logged exception was and where; the line where it is no JSON."""
    try:
        last = json.loads(line)["exception"][-1]
        frame = last["frames"][-1]
        return f"{last['exc_type']} at {frame['filename']}:{frame['lineno']}"
    except (ValueError, LookupError, TypeError):
        return line[:1000]

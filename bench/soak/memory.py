"""What each process of a fleet holds, over time."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil

# Of a run; the first and the last samples behind it are compared.
_WARM_UP_SHARE: Final = 0.3
_EDGE_SHARE: Final = 0.15
_MIB: Final = 1 << 20
_NAMES: Final = {"services.neuron.worker": "worker", "services.neuron.rendering": "rendering"}


@dataclass(slots=True)
class Course:
    """One process.

    Attributes:
        name: of its service, and what it does there.
        at: seconds since the start of the run, of each sample.
        proportional: bytes, pages that are shared counted by their share (PSS).
        resident: bytes, pages that are shared counted whole (RSS).
    """

    name: str
    at: list[float] = field(default_factory=list)
    proportional: list[int] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)

    def growth(self, held: Sequence[int]) -> float:
        """The last samples over the first ones behind the warm-up; 0.02 is two per cent.

        Medians, so that one sample amid a large request decides nothing.
        """
        warm = held[int(len(held) * _WARM_UP_SHARE) :]
        edge = max(1, int(len(held) * _EDGE_SHARE))
        return statistics.median(warm[-edge:]) / statistics.median(warm[:edge]) - 1

    def __str__(self) -> str:
        warm = int(len(self.at) * _WARM_UP_SHARE)
        held = [f"{self.proportional[i] / _MIB:.1f}" for i in (0, warm, -1)]
        most = f"{max(self.proportional) / _MIB:.1f}"
        grown = f"{self.growth(self.proportional):+.1%} | {self.growth(self.resident):+.1%}"
        return f"| {self.name} | {' | '.join(held)} | {most} | {grown} | {len(self.at)} |"


class Watch:
    """Samples the processes below some others until it is cancelled.

    Attributes:
        courses: by name and process id: a process that was replaced has its own.
    """

    def __init__(self, roots: Callable[[], dict[str, int]]) -> None:
        """Samples nothing yet.

        Args:
            roots: process ids of services by name, now.
        """
        self._roots = roots
        self._began = time.monotonic()
        self.courses: dict[tuple[str, int], Course] = {}

    async def run(self, seconds: float) -> None:
        """One sample every so many seconds."""
        while True:
            await asyncio.to_thread(self.sample)
            await asyncio.sleep(seconds)

    def sample(self) -> None:
        """Adds a sample of each process that lives."""
        now = time.monotonic() - self._began
        for name, pid in self._roots().items():
            with contextlib.suppress(psutil.Error):
                root = psutil.Process(pid)
                self._add(name, root, now)
                for child in root.children(recursive=True):
                    self._add(f"{name}, {_role(child)}", child, now)

    def _add(self, name: str, process: psutil.Process, now: float) -> None:
        with contextlib.suppress(OSError, psutil.Error):
            proportional, resident = _held(process.pid)
            course = self.courses.setdefault((name, process.pid), Course(name))
            course.at.append(now)
            course.proportional.append(proportional)
            course.resident.append(resident)

    def long_lived(self) -> list[Course]:
        """Those that were there from the warm-up to the end."""
        most = max((len(one.at) for one in self.courses.values()), default=0)
        return [one for one in self.courses.values() if len(one.at) >= most * (1 - _EDGE_SHARE)]


def _role(process: psutil.Process) -> str:
    words = process.cmdline()
    return next((_NAMES[word] for word in words if word in _NAMES), process.name())


def _held(pid: int) -> tuple[int, int]:
    """Bytes of PSS and RSS."""
    found: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        key, value, *_ = line.split()
        found[key] = int(value) * 1024
    return found["Pss:"], found["Rss:"]

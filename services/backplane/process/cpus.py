"""How many CPUs this process may use, and how its threads wait for each other on them."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

SPIN_COUNT: Final = "2000"
"""`GOMP_SPINCOUNT` of a process that computes: how often a thread looks before it goes to sleep.

Some 30 µs, which is longer than most operations of a forward pass take: threads that sleep behind
each of them need more than twice as long for a token. Nobody waits longer than that for a thread
whose core a neighbour has (libgomp's own is 300,000), and an idle process takes no CPU.
"""
_CGROUPS: Final = Path("/sys/fs/cgroup")


def usable_cpus(cgroups: Path = _CGROUPS) -> int:
    """CPUs that this process may run on, at most what its control group's quota is worth.

    Of cgroups in version 2 the group at the root of what is mounted is asked, which is a
    container's own.

    Args:
        cgroups: where they are mounted.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
        quota, period = (cgroups / "cpu.max").read_text().split()
        count = min(count or 1, max(1, -(-int(quota) // int(period))))  # "max" is no number
    return count or 1

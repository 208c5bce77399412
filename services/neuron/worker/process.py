"""What a worker asks of its operating system."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import sys
from pathlib import Path


def resident_bytes(*others: int) -> int:
    """Memory of this process, and of others by their ids, that is in RAM."""
    pages = 0
    for process in ("self", *others):
        with contextlib.suppress(OSError):  # not Linux, or it has ended
            pages += int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def give_memory_back() -> None:
    """Returns freed memory to the system at once, so that the next load finds it."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)

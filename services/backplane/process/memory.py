"""How the C library keeps memory for a process that holds large things for short times."""

from __future__ import annotations

import contextlib
import ctypes
from typing import Final

# <malloc.h> of glibc
_M_MMAP_THRESHOLD: Final = -3
_LARGE_BYTES: Final = 1 << 20


def return_large_blocks() -> None:
    """Makes the allocator give blocks of a megabyte and more back to the system when freed.

    By itself glibc keeps up to 32 MB after the first of such blocks was freed, and what small
    blocks then stand between stays with the process for ever. Other C libraries are left alone.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)

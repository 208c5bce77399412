"""How much of each model's files is in the page cache: a load reads that much without the disk."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import pathlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Final

from services.neuron.weights.inspect import Weights

_LOOK_SECONDS: Final = 10.0
"""A model's files are looked at again after so long, or once something was loaded or unloaded."""
_PAUSE: Final = 20.0
"""Before the next round of looks, as a multiple of how long the last one took."""
_ROUND_SECONDS: Final = 0.1
"""No look begins later in a round."""
_STEPS: Final = 16
"""What is told is a multiple of so much of a model, so that a status does not change all the time.
"""
_MOST_PAGES: Final = 16_384
"""Of one model. Of larger ones, runs of pages are looked at that are spread evenly."""
_RUN_PAGES: Final = 64

_libc: Final = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
)  # fmt: skip
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_FAILED: Final = ctypes.c_void_p(-1).value


class Residency:
    """Estimates how much of each model's files is in the page cache, by looking in rounds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Has looked at nothing yet.

        Args:
            clock: seconds.
        """
        self._clock = clock
        self._asked: dict[pathlib.Path, Weights] = {}
        self._seen: dict[pathlib.Path, tuple[float, int | None]] = {}
        self._next_at = 0.0
        self._loaded: frozenset[str] = frozenset()

    def of(self, weights: Weights) -> int | None:
        """Bytes of these weights in the page cache, to a sixteenth; None: not looked at yet."""
        self._asked[weights.path] = weights
        return self._seen.get(weights.path, (0.0, None))[1]

    def look(self, loaded: Iterable[str]) -> None:
        """Looks at the models asked about since the last round, the oldest look first. Blocks.

        Args:
            loaded: ids of the instances. Where they have changed, so may all files have.
        """
        now = self._clock()
        if now < self._next_at:
            return
        asked, self._asked = self._asked, {}
        looked_at = {path: seen for path, seen in self._seen.items() if path in asked}
        ids = frozenset(loaded)
        if ids != self._loaded:
            self._loaded = ids
            looked_at = {path: (-_LOOK_SECONDS, found) for path, (_, found) in looked_at.items()}
        never = (-_LOOK_SECONDS, None)
        due = [p for p in asked if looked_at.get(p, never)[0] + _LOOK_SECONDS <= now]
        due.sort(key=lambda path: looked_at.get(path, never)[0])
        for path in due:
            looked_at[path] = now, _in_steps(asked[path])
            if self._clock() - now > _ROUND_SECONDS:
                break
        self._seen = looked_at
        self._next_at = now + _PAUSE * (self._clock() - now)


def _in_steps(weights: Weights) -> int | None:
    found = resident_bytes([pathlib.Path(one) for one in weights.files or (weights.path,)])
    if found is None or not weights.bytes:
        return found
    return found * _STEPS // weights.bytes * weights.bytes // _STEPS


def resident_bytes(files: Sequence[pathlib.Path]) -> int | None:
    """Bytes of these files that are in the page cache, estimated where they are large.

    Returns: None where it cannot be told: a file is away, or the kernel tells only those who own a
        file or may write to it, to anybody else it says that all of it is there.
    """
    sizes: list[int] = []
    for file in files:
        size = _size_if_told(file)
        if size is None:
            return None
        sizes.append(size)
    total = sum(sizes)
    resident = 0.0
    for file, size in zip(files, sizes, strict=True):
        if size:
            share = _resident_share(file, size, most_pages=max(1, _MOST_PAGES * size // total))
            if share is None:
                return None
            resident += share * size
    return round(resident)


def _size_if_told(file: pathlib.Path) -> int | None:
    try:
        facts = file.stat()
        is_told = facts.st_uid == os.geteuid() or os.access(file, os.W_OK, effective_ids=True)
    except OSError:
        return None
    return facts.st_size if is_told else None


def _resident_share(file: pathlib.Path, size: int, *, most_pages: int) -> float | None:
    """Of the pages of one file that are looked at, the share that is in the page cache."""
    with _mapped(file, size) as address:
        if address is None:
            return None
        looked_at, found = 0, 0
        for first, count in _runs(-(-size // mmap.PAGESIZE), most_pages):
            pages = (ctypes.c_ubyte * count)()
            start = address + first * mmap.PAGESIZE
            if _libc.mincore(start, count * mmap.PAGESIZE, pages):
                return None
            looked_at += count
            found += sum(page & 1 for page in pages)
    return found / looked_at


def _runs(pages: int, most_pages: int) -> Iterator[tuple[int, int]]:
    """First page and number of pages of what is looked at."""
    if pages <= most_pages:
        yield 0, pages
        return
    runs = max(1, most_pages // _RUN_PAGES)
    length = min(_RUN_PAGES, most_pages)
    for number in range(runs):
        yield number * (pages - length) // max(1, runs - 1), length


@contextlib.contextmanager
def _mapped(file: pathlib.Path, size: int) -> Generator[int | None]:
    """Where a file is mapped, without reading any of it; None where it cannot be."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except OSError:
        yield None
        return
    try:
        address = _libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    finally:
        os.close(descriptor)
    if address == _FAILED:
        yield None
        return
    try:
        yield address
    finally:
        _libc.munmap(address, size)

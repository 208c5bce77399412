"""Keeps the log files of `cortex up` bounded: a full one is copied aside and emptied.

Several processes append to one file, each by a descriptor that it has inherited, so that renaming
it would change nothing for them. A line that is written within the microseconds between the end of
the copy and the emptying is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import shutil
import stat
from collections.abc import Collection
from typing import Final

import structlog

MOST_BYTES: Final = 32 << 20
KEPT: Final = 4
_LOOK_SECONDS: Final = 2.0
_CHUNK: Final = 1 << 20

log = structlog.get_logger()


def older(path: pathlib.Path, number: int) -> pathlib.Path:
    """The file that was emptied `number` times ago: `gateway.log.1` is the newest of them."""
    return path.with_name(f"{path.name}.{number}")


def turn_over(path: pathlib.Path, *, kept: int = KEPT) -> None:
    """Copies a log file aside and empties it; the oldest copy goes.

    Raises:
        OSError: it cannot be copied; it stays as it is.
    """
    beside = path.with_name(f".{path.name}.new")
    try:
        with path.open("r+b") as source, beside.open("wb") as copy:
            os.fchmod(copy.fileno(), stat.S_IMODE(os.fstat(source.fileno()).st_mode))
            shutil.copyfileobj(source, copy, _CHUNK)
            while rest := source.read(_CHUNK):  # what has come meanwhile
                copy.write(rest)
            copy.flush()  # before anything is given up: the disk may be full
            os.truncate(source.fileno(), 0)
    except OSError:
        beside.unlink(missing_ok=True)  # half a copy would keep the disk full
        raise
    for number in range(kept - 1, 0, -1):
        with contextlib.suppress(FileNotFoundError):
            older(path, number).replace(older(path, number + 1))
    beside.replace(older(path, 1))


async def keep_bounded(
    paths: Collection[pathlib.Path], *, most_bytes: int = MOST_BYTES, kept: int = KEPT
) -> None:
    """Turns each file over that has grown beyond a size, until it is cancelled."""
    while True:
        for path in paths:
            try:
                if path.stat().st_size > most_bytes:
                    await asyncio.to_thread(turn_over, path, kept=kept)
            except FileNotFoundError:
                continue
            except OSError as error:  # a full disk: later there may be room
                log.warning("log.not_turned_over", path=str(path), detail=str(error))
        await asyncio.sleep(_LOOK_SECONDS)

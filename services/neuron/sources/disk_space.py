"""The model store's disk: how much room it has, how much a download has taken, what went wrong."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import stat
import tempfile
from typing import Final

import structlog

from services.backplane.errors import FleetError, Reason

# What a download must leave free, so that the machine itself goes on.
_MARGIN_BYTES: Final = 512 << 20

log = structlog.get_logger()


def require_room(folder: pathlib.Path, needed: int) -> None:
    """Refuses what would fill the disk of a folder.

    Args:
        folder: on the disk in question.
        needed: bytes that are about to be written.

    Raises:
        FleetError: NO_ROOM, with the numbers.
    """
    free = shutil.disk_usage(folder).free
    if free < needed + _MARGIN_BYTES:
        raise FleetError(
            Reason.NO_ROOM,
            f"The disk of the model store has {free >> 20} MiB free; "
            f"{(needed + _MARGIN_BYTES) >> 20} MiB are needed.",
        )


def folder_bytes(folder: pathlib.Path) -> int:
    """Bytes of all files under a folder. Blocks; files and folders may come and go meanwhile."""
    total = 0
    # Not `rglob`, which raises where a folder goes away between being found and being read.
    for inside, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += file_bytes(pathlib.Path(inside, name)) or 0
    return total


def file_bytes(path: pathlib.Path) -> int | None:
    """Bytes of a file; None where there is none. Blocks; in one look, since files come and go."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def store_problems(folder: pathlib.Path) -> list[str]:
    """Why nothing can be downloaded to a folder, in a sentence; nothing where it can.

    Makes the folder where it is missing, since that is the first thing that can fail.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        problem = (
            f"The model store {folder} cannot be written ({error.strerror}): models that are"
            " here load, none can be downloaded. `store_dir` in [neuron] names another folder;"
            " under systemd it needs `ReadWritePaths=`."
        )
        log.warning("store.unwritable", detail=problem)
        return [problem]
    return []


def unwritable(error: OSError) -> FleetError:
    """SOURCE_UNAVAILABLE: the model store cannot be written."""
    return FleetError(
        Reason.SOURCE_UNAVAILABLE, f"The model store cannot be written: {error.strerror}."
    )


def stood_still(seconds: float) -> FleetError:
    """SOURCE_UNAVAILABLE: a download brought no byte for so many seconds."""
    return FleetError(Reason.SOURCE_UNAVAILABLE, f"The download stood still for {seconds:.0f} s.")

"""The model store's disk: how much room it has, how much a download has taken, what went wrong."""

from __future__ import annotations

import contextlib
import pathlib
import shutil
from typing import Final

from services.backplane.errors import FleetError, Reason

# What a download must leave free, so that the machine itself goes on.
_MARGIN_BYTES: Final = 512 << 20


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
    """Bytes of all files under a folder. Blocks; files may come and go meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file():
                total += path.stat().st_size
    return total


def unwritable(error: OSError) -> FleetError:
    """SOURCE_UNAVAILABLE: the model store cannot be written."""
    return FleetError(
        Reason.SOURCE_UNAVAILABLE, f"The model store cannot be written: {error.strerror}."
    )


def stood_still(seconds: float) -> FleetError:
    """SOURCE_UNAVAILABLE: a download brought no byte for so many seconds."""
    return FleetError(Reason.SOURCE_UNAVAILABLE, f"The download stood still for {seconds:.0f} s.")

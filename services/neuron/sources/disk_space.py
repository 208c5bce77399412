"""How much room a disk has for a download."""

from __future__ import annotations

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

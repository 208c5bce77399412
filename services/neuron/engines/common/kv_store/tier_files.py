"""The files of one tier: what there is, who may write now, and how they come to another tier."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import shutil
import time
from collections.abc import Generator
from typing import Final

SUFFIX: Final = ".kv"
_LOCK: Final = ".lock"
MOST_WAIT_SECONDS: Final = 2.0
"""A model that goes waits no longer for others that write; other models wait for it meanwhile."""
_LOOK_SECONDS: Final = 0.02


@dataclasses.dataclass(frozen=True, slots=True)
class SavedFile:
    """A saved sequence, as its name and its size tell of it.

    Attributes:
        path: the file, which may be gone.
        size_bytes: of the file.
        seconds: of reading that it saves.
    """

    path: pathlib.Path
    size_bytes: int
    seconds: float

    @property
    def worth(self) -> float:
        """Seconds of reading that it saves per byte."""
        return self.seconds / max(1, self.size_bytes)


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Generator[None]:
    """Locks a tier against other writers; first removes what a dead one left half written.

    Raises:
        OSError: it cannot be written, or others write for longer than `MOST_WAIT_SECONDS`.
    """
    ends_at = time.monotonic() + MOST_WAIT_SECONDS
    with (folder / _LOCK).open("ab") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > ends_at:
                    raise TimeoutError(f"Others write to {folder} for too long.") from None
            time.sleep(_LOOK_SECONDS)
        for part in folder.glob(f"*/*/*{SUFFIX}.part-*"):
            part.unlink(missing_ok=True)
        yield


def move(path: pathlib.Path, target: pathlib.Path) -> None:
    """Moves a saved sequence to another file system, whole or not at all; drops it if it cannot.

    Raises:
        OSError: the target's folder cannot be made.
    """
    make_folder(target.parent)
    part = target.with_name(f"{target.name}.part-{os.getpid()}")
    try:
        shutil.copyfile(path, part)
        part.chmod(0o600)
        part.rename(target)
    except OSError:
        part.unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def all_files(folder: pathlib.Path) -> list[SavedFile]:
    """The files of all models and scopes of a tier."""
    return [file for scope in folder.glob("*/*") for file in files_of(scope)]


def files_of(folder: pathlib.Path) -> list[SavedFile]:
    """The files of one model and scope, by name; none where the folder cannot be read."""
    found: list[SavedFile] = []
    with contextlib.suppress(OSError), os.scandir(folder) as listing:
        for one in listing:
            if not one.name.endswith(SUFFIX):
                continue
            with contextlib.suppress(OSError, ValueError):
                milliseconds = int(one.name.removesuffix(SUFFIX).rpartition("-")[2])
                size = one.stat(follow_symlinks=False).st_size
                found.append(SavedFile(pathlib.Path(one.path), size, milliseconds / 1000))
    return sorted(found, key=lambda file: file.path)


def make_folder(folder: pathlib.Path) -> None:
    """Makes the folder of one model and scope, that only its owner can read.

    Raises:
        OSError: it cannot be made.
    """
    for one in (folder.parent, folder):
        one.mkdir(mode=0o700, parents=True, exist_ok=True)

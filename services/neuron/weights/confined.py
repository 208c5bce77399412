"""Whether files lie below some folders, once every link is followed."""

from __future__ import annotations

import pathlib
from collections.abc import Collection, Iterable
from typing import Final

_MAPS: Final = pathlib.Path("/proc/self/maps")
_MAGIC: Final = b"GGUF"
# Before the path in a line: addresses, rights, offset, device, inode.
_FIELDS_BEFORE: Final = 5


def is_inside(path: pathlib.Path, folders: Iterable[pathlib.Path]) -> bool:
    """True if a path leads below one of the folders, whatever links are on the way."""
    try:
        found = path.resolve()
        return any(found.is_relative_to(each.resolve()) for each in folders)
    except (OSError, ValueError, RuntimeError):  # too long, with NUL, in a circle
        return False


def first_outside(
    paths: Iterable[pathlib.Path], folders: Collection[pathlib.Path]
) -> pathlib.Path | None:
    """The first of some files, or of the files below some folders, that leads out of `folders`."""
    for path in paths:
        files = [path, *path.rglob("*")] if path.is_dir() else [path]
        for each in files:
            if not is_inside(each, folders):
                return each
    return None


def mapped_models() -> set[str]:
    """The GGUF files that this process has in its memory, by their own paths, not by links.

    The kernel tells which files were really opened, whatever their paths lead to by now.
    """
    try:
        lines = _MAPS.read_text(errors="surrogateescape").splitlines()
    except OSError:  # not Linux
        return set()
    fields = [line.split(None, _FIELDS_BEFORE) for line in lines]
    paths = {one[_FIELDS_BEFORE] for one in fields if len(one) > _FIELDS_BEFORE}
    return {path for path in paths if path.startswith("/") and _is_model(path)}


def _is_model(path: str) -> bool:
    if ".so" in path or path.startswith("/dev/"):
        return False
    try:
        with pathlib.Path(path).open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False

"""Checks weights against the SHA-256 that somebody wrote down for them.

A source text may end in `#sha256=HEX`. Of one file that is its digest. Of several (a folder, the
parts of a split file) it is the digest of what `sha256sum` prints for them, sorted by name; see
docs/operating.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Final

from services.backplane.errors import FleetError, Reason
from services.neuron.sources.hub_files import HubFile

_MARK: Final = re.compile(r"#sha256=(?P<digest>[0-9a-fA-F]{64})$")
_CHUNK_BYTES: Final = 1 << 20


def split(text: str) -> tuple[str, str]:
    """A source text without its digest, and the digest; empty where it names none."""
    found = _MARK.search(text)
    return (text, "") if found is None else (text[: found.start()], found["digest"])


def files_of(path: pathlib.Path) -> list[pathlib.Path]:
    """The files of a folder that are not hidden, or the file itself. Blocks."""
    if not path.is_dir():
        return [path]
    found = [one for one in path.rglob("*") if one.is_file()]
    return [
        one
        for one in found
        if not any(part.startswith(".") for part in one.relative_to(path).parts)
    ]


async def check(
    path: pathlib.Path,
    files: Sequence[pathlib.Path],
    expected: str,
    on_bytes: Callable[[int, int], None],
) -> None:
    """Compares the SHA-256 of all files with the digest that is expected of them.

    Args:
        path: what they are files of; a folder, or the first of them.
        files: in any order.
        expected: hex.
        on_bytes: told bytes read and bytes in all.

    Raises:
        FleetError: MODEL_FILE_BAD, the digest is another one.
    """
    loop = asyncio.get_running_loop()
    stop = False

    def note(done: int, total: int) -> bool:
        loop.call_soon_threadsafe(on_bytes, done, total)
        return stop

    try:
        actual = await asyncio.to_thread(_digest, path, files, note)
    finally:
        stop = True  # a thread cannot be cancelled; it ends with its next chunk
    if actual != expected.lower():
        raise FleetError(
            Reason.MODEL_FILE_BAD, f"{path.name} has the digest {actual}, not {expected.lower()}."
        )


def _digest(
    path: pathlib.Path, files: Sequence[pathlib.Path], note: Callable[[int, int], bool]
) -> str:
    base = path if path.is_dir() else path.parent
    named = sorted((one.relative_to(base).as_posix().encode(), one) for one in files)
    total, done = sum(one.stat().st_size for one in files), 0
    listed = hashlib.sha256()
    single = ""
    for name, one in named:
        made = hashlib.sha256()
        with one.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                made.update(chunk)
                done += len(chunk)
                if note(done, total):
                    return ""
        single = made.hexdigest()
        listed.update(single.encode() + b"  " + name + b"\n")
    return single if len(named) == 1 and path.is_file() else listed.hexdigest()


def check_file(
    file: HubFile, part: pathlib.Path, note: Callable[[int], None] = lambda _: None
) -> None:
    """Checks that a file has come as the hub has it; one that has not is removed. Blocks.

    Args:
        file: as the hub tells it.
        part: where it lies.
        note: told how many more bytes were read.

    Raises:
        FleetError: MODEL_FILE_BAD, its size or digest is another one.
    """
    if part.stat().st_size != file.size:
        told = f"{file.path} has {part.stat().st_size} bytes; the hub says {file.size}."
        part.unlink()
        raise FleetError(Reason.MODEL_FILE_BAD, told)
    if not file.sha256:
        return
    made = hashlib.sha256()
    with part.open("rb") as content:
        while chunk := content.read(_CHUNK_BYTES):
            made.update(chunk)
            note(len(chunk))
    if made.hexdigest() != file.sha256:
        part.unlink()  # going on behind wrong bytes would never end well
        told = f"{file.path} came with the digest {made.hexdigest()}, not {file.sha256}."
        raise FleetError(Reason.MODEL_FILE_BAD, told)

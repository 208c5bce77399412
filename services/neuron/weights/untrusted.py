"""Reading files that anybody may have made: of what kind, how large, how long, and what is true.

A models folder holds what people download. Whatever lies there, looking at it ends, costs little
and leaves a line for the operator.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import stat
import time
from collections.abc import Generator
from typing import Any, BinaryIO, Final

READ_SECONDS: Final = 10.0
"""Longest time that the head of one file may take."""
MOST_TOKENS: Final = 1 << 31
MOST_BYTES: Final = 1 << 50
_WORD: Final = re.compile(r"[\w .,:+/()\[\]-]{1,64}", re.ASCII)


class UntrustedFileError(ValueError):
    """What a file says cannot be true, or reading it takes too long; the message says what."""


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Generator[BinaryIO]:
    """Opens a regular file for reading. Pipes, devices and the like are refused without waiting.

    Raises:
        DistrustedError: it is a pipe, a device or a socket.
        OSError: it cannot be opened.
    """
    # Without O_NONBLOCK a pipe that nobody writes to would be waited for at once.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise UntrustedFileError("it is no regular file")
        yield file


def text_of(path: pathlib.Path, *, most_bytes: int) -> str:
    """The text of a small file.

    Raises:
        DistrustedError: it is no regular file, or larger.
        OSError: it cannot be read.
    """
    with opened(path) as file:
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise UntrustedFileError(f"{path.name} has more than {most_bytes >> 20} MiB")
    return data.decode("utf-8", errors="replace")


def whole(name: str, value: Any, *, most: int = MOST_TOKENS) -> int:
    """A number that a file tells of a model.

    Raises:
        DistrustedError: it is none, negative or absurd.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise UntrustedFileError(f"{name} is no whole number")
    if not 0 <= value <= most:
        raise UntrustedFileError(f"{name} cannot be true")
    return value


def word(value: Any) -> str:
    """A short printable name out of a file; empty where the file has something else there."""
    return value if isinstance(value, str) and _WORD.fullmatch(value) else ""


def shown(text: str) -> str:
    """A file's name or words, made safe to be printed in a line of the status."""
    clean = "".join(
        letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text
    )
    return clean[:500]


class ReadDeadline:
    """The seconds that reading one file may take, so that a hostile file holds up nobody."""

    def __init__(self, seconds: float = READ_SECONDS) -> None:
        """Begins now."""
        self._ends_at = time.monotonic() + seconds

    def check(self) -> None:
        """Returns while there is time left.

        Raises:
            DistrustedError: the time is over.
        """
        if time.monotonic() > self._ends_at:
            raise UntrustedFileError("reading it takes too long")

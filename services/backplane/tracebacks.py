"""Exceptions as text for logs: what they are and where they were raised, never what they say.

The message of an exception that nobody foresaw may be a body, a key or an output: libraries quote
what they were given. So nothing that is logged or written has it.
"""

from __future__ import annotations

import errno
import sys
import threading
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Final

from services.backplane.errors import FleetError

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_MOST_FRAMES: Final = 60  # of one exception: a recursion has thousands
_MOST_LINKS: Final = 8  # of a chain, and members of a group
_INDENT: Final = "  "


def describe(error: BaseException) -> str:
    """Types and frames of an exception and of those behind it, the oldest first.

    An error of the operating system has its name (`ENOSPC`), one of ours its reason.
    """
    return "\n".join(_lines(error, 0))


def write_unforeseen() -> None:
    """Makes this process write uncaught exceptions of any thread in the same form."""
    sys.excepthook = _on_exception
    threading.excepthook = lambda ended: _write(f"thread {_name(ended.thread)}", ended.exc_value)
    sys.unraisablehook = _on_unraisable


def _lines(error: BaseException, depth: int) -> Iterator[str]:
    for link, how in reversed(list(_chain(error))):
        yield from (_INDENT * depth + line for line in _one(link))
        if isinstance(link, BaseExceptionGroup) and depth < _MOST_LINKS:
            for member in link.exceptions[:_MOST_LINKS]:
                yield from _lines(member, depth + 1)
        if how:
            yield _INDENT * depth + how


def _one(error: BaseException) -> Iterator[str]:
    frames = [
        f"{_INDENT}{frame.f_code.co_filename}:{line} in {frame.f_code.co_qualname}"
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    if frames:
        yield "Traceback (most recent call last):"
    if (over := len(frames) - _MOST_FRAMES) > 0:
        half = _MOST_FRAMES // 2
        frames[half:-half] = [f"{_INDENT}… {over} more …"]
    yield from frames
    yield _kind(error)


def _kind(error: BaseException) -> str:
    cls = type(error)
    name = cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__name__}"
    if isinstance(error, FleetError):
        return f"{name} ({error.reason.value})"
    if isinstance(error, OSError) and error.errno is not None:
        return f"{name} ({errno.errorcode.get(error.errno, error.errno)})"
    return name


def _chain(error: BaseException) -> Iterator[tuple[BaseException, str]]:
    """An exception and those behind it, each with how the one before it came of it."""
    link: BaseException | None = error
    seen: set[int] = set()
    how = ""
    while link is not None and id(link) not in seen and len(seen) < _MOST_LINKS:
        seen.add(id(link))
        yield link, how
        how = "which caused:" if link.__cause__ else "during which came:"
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)


def _on_exception(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    del kind, trace  # the exception has them
    _write("", error)


def _on_unraisable(what: UnraisableHookArgs) -> None:
    _write("ignored", what.exc_value)


def _name(thread: threading.Thread | None) -> str:
    return thread.name if thread is not None else "?"


def _write(where: str, error: BaseException | None) -> None:
    if error is None or isinstance(error, KeyboardInterrupt | SystemExit):
        return
    out = sys.stderr
    if out is not None:  # a process may be started without
        out.write(f"{where}: {describe(error)}\n" if where else f"{describe(error)}\n")
        out.flush()

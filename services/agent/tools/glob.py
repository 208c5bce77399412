"""The tool that finds files by name."""

import asyncio
import itertools
import math
import os
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from typing_extensions import override

from services.agent.core.modes import Effect
from services.agent.core.text import clean, one_line
from services.agent.core.workspace import Workspace
from services.agent.tools.tool import BuiltinTool, Preview, ToolContext, ToolError, ToolOutcome
from services.backplane.timeouts import timeout

_MOST_FILES = 500
_SECONDS = 30.0
_MOST_ALTERNATIVES = 1000
_BRACES = re.compile(r"(\{[^{}]*\})")
SKIPPED = frozenset({".git", ".hg", ".svn", ".venv", "node_modules", "__pycache__"})


class GlobArguments(msgspec.Struct):
    """Arguments of one call, as the model writes them."""

    pattern: Annotated[
        str, msgspec.Meta(description="Such as `**/*.py` or `src/*.{ts,tsx}`, below the path.")
    ]
    path: Annotated[str, msgspec.Meta(description="Where to look; the project by default.")] = "."


class Glob(BuiltinTool[GlobArguments]):
    """Finds files below a directory; version control and dependency folders are skipped."""

    name = "glob"
    description = "Finds files whose path matches a pattern; `**` stands for any directories."
    effect = Effect.READ

    def __init__(self) -> None:
        super().__init__(GlobArguments, kind="search")

    @override
    def describe(self, arguments: GlobArguments, workspace: Workspace) -> Preview:
        where = workspace.shown(arguments.path)
        path = workspace.absolute(arguments.path)
        title = one_line(f"Find {arguments.pattern} in {where}", 100)
        return Preview(title, target=path, locations=((path, None),))

    @override
    async def execute(self, arguments: GlobArguments, context: ToolContext) -> ToolOutcome:
        root = context.workspace.absolute(arguments.path)
        root = context.permit(root) or root
        stop = threading.Event()
        matching = Globbed(arguments.pattern)
        try:
            async with timeout(_SECONDS):
                found = await asyncio.to_thread(_walk, root, matching, stop)
        except TimeoutError as error:
            raise ToolError(f"looking below {root} took more than {_SECONDS:g} s") from error
        finally:
            stop.set()  # the thread outlives a cancelled wait
        found.sort()
        lines = found[:_MOST_FILES]
        if len(found) > _MOST_FILES:
            lines.append("[more files match; narrow the pattern]")
        return ToolOutcome("\n".join(lines) or "[no file matches]")


class Globbed:
    """A pattern; one without a slash matches names in any directory.

    Matches by directories and without going back, so that no pattern takes for ever: a thread
    in a regular expression cannot be stopped, and stops all others.

    Raises:
        ToolError: its braces stand for too many patterns.
    """

    def __init__(self, pattern: str) -> None:
        pattern = pattern.removeprefix("./")
        if "/" not in pattern:
            pattern = "**/" + pattern
        pieces = _BRACES.split(pattern)
        choices = [each[1:-1].split(",") if _BRACES.fullmatch(each) else [each] for each in pieces]
        if math.prod(map(len, choices)) > _MOST_ALTERNATIVES:
            raise ToolError(f"the pattern stands for more than {_MOST_ALTERNATIVES}; narrow it")
        self._patterns = [
            [None if each == "**" else _segment(each) for each in "".join(chosen).split("/")]
            for chosen in itertools.product(*choices)
        ]

    def matches(self, name: str) -> bool:
        """Says whether a relative path matches."""
        names = name.split("/")
        return any(_matches(pattern, names) for pattern in self._patterns)


def _segment(text: str) -> re.Pattern[str]:
    """Translates what stands between two slashes; each `*` takes the least that goes on."""
    first, *rest = ("".join("." if c == "?" else re.escape(c) for c in p) for p in text.split("*"))
    if rest:
        *middle, last = rest
        first += "".join(f"(?>.*?{each})" for each in middle if each) + ".*" + last
    return re.compile(first, re.DOTALL)


def _matches(pattern: Sequence[re.Pattern[str] | None], names: Sequence[str]) -> bool:
    """Follows all ways at once in which directories match; None stands for any of them."""
    at = _opened({0}, pattern)
    for name in names:
        here = ((place, pattern[place]) for place in at if place < len(pattern))
        at = _opened(
            {
                place if each is None else place + 1
                for place, each in here
                if each is None or each.fullmatch(name)
            },
            pattern,
        )
    return len(pattern) in at


def _opened(places: set[int], pattern: Sequence[re.Pattern[str] | None]) -> set[int]:
    """Adds the places behind each `**`, which may stand for nothing."""
    for place, each in enumerate(pattern):  # forwards: one may open the next
        if each is None and place in places:
            places.add(place + 1)
    return places


def _walk(root: Path, matching: Globbed, stop: threading.Event) -> list[str]:
    found: list[str] = []
    for name in _files(root):
        if stop.is_set() or len(found) > _MOST_FILES:
            break
        if matching.matches(name):
            found.append(clean(name))
    return found


def _files(root: Path) -> Iterator[str]:
    for directory, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - SKIPPED)
        base = os.path.relpath(directory, root)
        for name in sorted(names):
            yield name if base == "." else f"{base}/{name}"

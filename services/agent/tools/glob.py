"""The tool that finds files by name."""

import asyncio
import os
import re
import threading
from collections.abc import Iterator
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
_PIECE = re.compile(r"(\*\*/|\*\*|\*|\?|\{[^{}]*\})")
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
        matching = compiled(arguments.pattern)
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


def compiled(pattern: str) -> re.Pattern[str]:
    """Translates a pattern; one without a slash matches names in any directory."""
    pattern = pattern.removeprefix("./")
    if "/" not in pattern:
        pattern = "**/" + pattern
    return re.compile("".join(map(_translated, _PIECE.split(pattern))), re.DOTALL)


def _translated(piece: str) -> str:
    if piece.startswith("{"):
        return "(?:" + "|".join(map(re.escape, piece[1:-1].split(","))) + ")"
    known = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return known.get(piece) or re.escape(piece)


def _walk(root: Path, matching: re.Pattern[str], stop: threading.Event) -> list[str]:
    found: list[str] = []
    for name in _files(root):
        if stop.is_set() or len(found) > _MOST_FILES:
            break
        if matching.fullmatch(name):
            found.append(clean(name))
    return found


def _files(root: Path) -> Iterator[str]:
    for directory, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - SKIPPED)
        base = os.path.relpath(directory, root)
        for name in sorted(names):
            yield name if base == "." else f"{base}/{name}"

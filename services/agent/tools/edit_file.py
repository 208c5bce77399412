"""The tool that replaces a piece of a file."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import acp
import msgspec
from typing_extensions import override

from services.agent.core.editor import Content
from services.agent.core.modes import Effect
from services.agent.core.text import one_line
from services.agent.core.workspace import Workspace
from services.agent.tools.files import read_text, refuse_left_out, write_text
from services.agent.tools.tool import BuiltinTool, Preview, ToolContext, ToolError, ToolOutcome


class EditFileArguments(msgspec.Struct):
    """Arguments of one call, as the model writes them."""

    path: Annotated[str, msgspec.Meta(description="The file, absolute or below the project.")]
    old_text: Annotated[
        str, msgspec.Meta(description="The exact text to replace, with enough around it.")
    ]
    new_text: Annotated[str, msgspec.Meta(description="The text to put in its place.")]
    replace_all: Annotated[bool, msgspec.Meta(description="Replace every occurrence.")] = False


class EditFile(BuiltinTool[EditFileArguments]):
    """Replaces a text that occurs exactly once, or every occurrence when told to."""

    name = "edit_file"
    description = (
        "Replaces old_text, which must occur exactly once in the file, with new_text. "
        "Read the file first and copy old_text exactly, spaces and line ends included."
    )
    effect = Effect.WRITE

    def __init__(self) -> None:
        super().__init__(EditFileArguments, kind="edit")

    @override
    def describe(self, arguments: EditFileArguments, workspace: Workspace) -> Preview:
        path = workspace.absolute(arguments.path)
        title = one_line(f"Edit {workspace.shown(arguments.path)}", 100)
        return Preview(title, target=path, locations=((path, None),))

    @override
    async def changes(
        self, arguments: EditFileArguments, context: ToolContext
    ) -> Sequence[Content]:
        path, before, after = await self._edited(arguments, context)
        return (acp.tool_diff_content(str(path), after, before),)

    @override
    async def execute(self, arguments: EditFileArguments, context: ToolContext) -> ToolOutcome:
        path, before, after = await self._edited(arguments, context)
        await write_text(path, after, context)
        line = before.count("\n", 0, _search(before, arguments).at) + 1
        content = (acp.tool_diff_content(str(path), after, before),)
        return ToolOutcome(f"edited {path} at line {line}", content=content)

    async def _edited(
        self, arguments: EditFileArguments, context: ToolContext
    ) -> tuple[Path, str, str]:
        path = context.workspace.absolute(arguments.path)
        before = await read_text(path, context)
        after = edited(before, arguments)
        refuse_left_out(before, after)
        return path, before, after


@dataclass(frozen=True, slots=True)
class _Found:
    """Where a text occurs first, what matches it everywhere, and what is to stand there."""

    at: int
    pattern: re.Pattern[str]
    new: str
    is_exact: bool  # line ends included


def edited(text: str, arguments: EditFileArguments) -> str:
    """Returns the text after the edit.

    A model writes plain line ends; where the file has others, they are taken as those, line by
    line. It also writes composed letters, where a file may have decomposed ones.

    Raises:
        ToolError: the old text is empty, absent or ambiguous.
    """
    found = _search(text, arguments)
    count = sum(1 for _ in found.pattern.finditer(text))
    if count > 1 and not arguments.replace_all:
        raise ToolError(f"old_text occurs {count} times; give more of the text around it")

    def placed(match: re.Match[str]) -> str:
        if found.is_exact and "\r" in arguments.old_text:  # it is about the line ends themselves
            return found.new
        if _is_crlf_at(text, match.start()):
            return found.new.replace("\r\n", "\n").replace("\n", "\r\n")
        return found.new if found.is_exact else found.new.replace("\r\n", "\n")

    return found.pattern.sub(placed, text)


def _search(text: str, arguments: EditFileArguments) -> _Found:
    """Finds the old text as it is, then with other line ends, then with other forms of letters."""
    old, new = arguments.old_text, arguments.new_text
    if not old:
        raise ToolError("old_text is empty; use write_file to write a whole file")
    for form in (None, "NFC", "NFD"):
        wanted, put = (
            (old, new)
            if form is None
            else (unicodedata.normalize(form, old), unicodedata.normalize(form, new))
        )
        if (at := text.find(wanted)) >= 0:
            return _Found(at, re.compile(re.escape(wanted)), put, is_exact=True)
        lines = wanted.replace("\r\n", "\n").split("\n")
        pattern = re.compile("\r?\n".join(map(re.escape, lines)))
        if match := pattern.search(text):
            return _Found(match.start(), pattern, put, is_exact=False)
    raise ToolError("old_text does not occur in the file; read the file and copy it exactly")


def _is_crlf_at(text: str, at: int) -> bool:
    """Says whether the line of a place ends with CRLF; the last line is taken as the one before."""
    end = text.find("\n", at)
    if end < 0:
        end = text.rfind("\n", 0, at)
    return end > 0 and text[end - 1] == "\r"

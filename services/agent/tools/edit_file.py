"""The tool that replaces a piece of a file."""

from collections.abc import Sequence
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
        line = before[: before.find(arguments.old_text)].count("\n") + 1
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


def edited(text: str, arguments: EditFileArguments) -> str:
    """Returns the text after the edit.

    A model writes plain line ends; in a file with CRLF they are taken as those.

    Raises:
        ToolError: the old text is empty, absent or ambiguous.
    """
    old, new = arguments.old_text, arguments.new_text
    if not old:
        raise ToolError("old_text is empty; use write_file to write a whole file")
    if old not in text and "\r\n" in text:
        old, new = _with_crlf(old), _with_crlf(new)
    count = text.count(old)
    if count == 0:
        raise ToolError("old_text does not occur in the file; read the file and copy it exactly")
    if count > 1 and not arguments.replace_all:
        raise ToolError(f"old_text occurs {count} times; give more of the text around it")
    return text.replace(old, new)


def _with_crlf(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\n", "\r\n")

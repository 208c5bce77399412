"""The tool that writes a whole file."""

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
from services.agent.tools.files import in_form_of, read_if_any, refuse_left_out, write_text
from services.agent.tools.tool import BuiltinTool, Preview, ToolContext, ToolOutcome


class WriteFileArguments(msgspec.Struct):
    """Arguments of one call, as the model writes them."""

    path: Annotated[str, msgspec.Meta(description="The file, absolute or below the project.")]
    content: Annotated[str, msgspec.Meta(description="The whole new text of the file.")]


class WriteFile(BuiltinTool[WriteFileArguments]):
    """Creates or replaces a file."""

    name = "write_file"
    description = "Writes a text file, replacing it if it exists, creating directories as needed."
    effect = Effect.WRITE

    def __init__(self) -> None:
        super().__init__(WriteFileArguments, kind="edit")

    @override
    def describe(self, arguments: WriteFileArguments, workspace: Workspace) -> Preview:
        path = workspace.absolute(arguments.path)
        title = one_line(f"Write {workspace.shown(arguments.path)}", 100)
        return Preview(title, target=path, locations=((path, None),))

    @override
    async def changes(
        self, arguments: WriteFileArguments, context: ToolContext
    ) -> Sequence[Content]:
        path, before, after = await self._written(arguments, context)
        return (acp.tool_diff_content(str(path), after, before),)

    @override
    async def execute(self, arguments: WriteFileArguments, context: ToolContext) -> ToolOutcome:
        path, before, after = await self._written(arguments, context)
        await write_text(path, after, context)
        size = len(after.encode())
        kept = "" if after == arguments.content else ", its byte order mark and line ends kept"
        content = (acp.tool_diff_content(str(path), after, before),)
        return ToolOutcome(f"wrote {size} bytes to {path}{kept}", content=content)

    async def _written(
        self, arguments: WriteFileArguments, context: ToolContext
    ) -> tuple[Path, str | None, str]:
        path = context.workspace.absolute(arguments.path)
        before = await read_if_any(path, context)
        refuse_left_out(before, arguments.content)
        return path, before, in_form_of(before, arguments.content)

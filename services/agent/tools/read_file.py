"""The tool that reads a file."""

import re
from typing import Annotated

import msgspec
from typing_extensions import override

from services.agent.core.modes import Effect
from services.agent.core.text import one_line
from services.agent.core.workspace import Workspace
from services.agent.tools.files import read_text
from services.agent.tools.tool import BuiltinTool, Preview, ToolContext, ToolError, ToolOutcome


class ReadFileArguments(msgspec.Struct):
    """Arguments of one call, as the model writes them."""

    path: Annotated[str, msgspec.Meta(description="The file, absolute or below the project.")]
    line: Annotated[int | None, msgspec.Meta(description="First line to read, from 1.")] = None
    limit: Annotated[int | None, msgspec.Meta(description="How many lines to read.")] = None


class ReadFile(BuiltinTool[ReadFileArguments]):
    """Reads text, as much of it as the output limit allows."""

    name = "read_file"
    description = "Reads a text file, whole or some of its lines."
    effect = Effect.READ

    def __init__(self) -> None:
        super().__init__(ReadFileArguments, kind="read")

    @override
    def describe(self, arguments: ReadFileArguments, workspace: Workspace) -> Preview:
        title = one_line(f"Read {workspace.shown(arguments.path)}", 100)
        path = workspace.absolute(arguments.path)
        return Preview(title, target=path, locations=((path, arguments.line),))

    @override
    async def execute(self, arguments: ReadFileArguments, context: ToolContext) -> ToolOutcome:
        path = context.workspace.absolute(arguments.path)
        text = await read_text(path, context, permitted=context.permit(path))
        # As editors and grep count them: a form feed or U+2028 ends no line.
        lines = re.findall(r"[^\n]*\n|[^\n]+", text)
        first = max((arguments.line or 1) - 1, 0)
        if lines and first >= len(lines):
            raise ToolError(f"the file has only {len(lines)} lines")
        end = len(lines) if arguments.limit is None else first + max(arguments.limit, 0)
        kept, size = first, 0
        while kept < min(end, len(lines)) and size + len(lines[kept]) <= context.output_bytes:
            size += len(lines[kept])
            kept += 1
        if kept == first and first < min(end, len(lines)):
            return ToolOutcome(lines[first][: context.output_bytes] + "\n[the line was cut here]")
        part = "".join(lines[first:kept])
        if kept < min(end, len(lines)):  # not where the model itself asked for fewer lines
            part += f"\n[cut here; go on with line={kept + 1} of {len(lines)}]"
        return ToolOutcome(part)

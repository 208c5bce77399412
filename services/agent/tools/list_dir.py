"""The tool that lists a directory."""

import asyncio
import os
from pathlib import Path
from typing import Annotated

import msgspec
from typing_extensions import override

from services.agent.core.modes import Effect
from services.agent.core.text import clean, one_line
from services.agent.core.workspace import Workspace
from services.agent.tools.tool import BuiltinTool, Preview, ToolContext, ToolError, ToolOutcome

_MOST_ENTRIES = 1000


class ListDirArguments(msgspec.Struct):
    """Arguments of one call, as the model writes them."""

    path: Annotated[str, msgspec.Meta(description="The directory; the project by default.")] = "."


class ListDir(BuiltinTool[ListDirArguments]):
    """Lists names with `d`, `f` or `l` before each."""

    name = "list_dir"
    description = "Lists a directory: d for a directory, f for a file, l for a link."
    effect = Effect.READ

    def __init__(self) -> None:
        super().__init__(ListDirArguments, kind="read")

    @override
    def describe(self, arguments: ListDirArguments, workspace: Workspace) -> Preview:
        path = workspace.absolute(arguments.path)
        title = one_line(f"List {workspace.shown(arguments.path)}", 100)
        return Preview(title, target=path, locations=((path, None),))

    @override
    async def execute(self, arguments: ListDirArguments, context: ToolContext) -> ToolOutcome:
        path = context.workspace.absolute(arguments.path)
        try:
            entries = await asyncio.to_thread(_entries, context.permit(path) or path)
        except (OSError, ValueError) as error:
            raise ToolError(f"{path} cannot be listed: {error}") from error
        shown = entries[:_MOST_ENTRIES]
        if len(entries) > len(shown):
            shown.append(f"[{len(entries) - len(shown)} more]")
        return ToolOutcome("\n".join(shown) or "[empty]")


def _entries(path: Path) -> list[str]:
    with os.scandir(path) as entries:
        found = sorted((entry.name, entry) for entry in entries)
        return [f"{_letter(entry)} {clean(name)}" for name, entry in found]


def _letter(entry: "os.DirEntry[str]") -> str:
    if entry.is_symlink():
        return "l"
    return "d" if entry.is_dir() else "f"

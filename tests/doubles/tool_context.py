"""What a tool is given when it runs, without a session."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.agent.core.editor import EditorError, Offered
from services.agent.core.modes import Mode
from services.agent.core.workspace import Workspace
from services.agent.tools.processes.background import BackgroundCommands
from services.agent.tools.tool import ToolContext, ToolError


class RefusingEditor:
    """An editor that offers files and refuses those outside its workspace."""

    offered = Offered(reads=True, writes=True)

    async def read(self, path: Path) -> str:
        raise EditorError("outside of the workspace")


class NoEditor:
    offered = Offered()


def context(cwd: Path, editor: Any = None, **changes: Any) -> ToolContext:
    async def progress(_: Sequence[Any]) -> None:
        return

    given: dict[str, Any] = {
        "workspace": Workspace(str(cwd), [], environment={"HOME": str(cwd)}),
        "editor": editor or NoEditor(),
        "permit": _permitted,
        "permit_private": lambda _: None,
        "progress": progress,
        "finish": progress,
        "background": BackgroundCommands(),
        "environment": dict(os.environ),
        "output_bytes": 4096,
        "bash_seconds": 30.0,
        "keep": lambda *_: None,
        "mode": lambda: Mode.DEFAULT,
        "set_mode": progress,
        "choose": progress,
        "search": progress,
    }
    return ToolContext(**{**given, **changes})


def _permitted(path: Path | None) -> Path | None:
    try:
        return path and Path(os.path.realpath(path))
    except ValueError as error:
        raise ToolError(f"{path} is no path: {error}") from error

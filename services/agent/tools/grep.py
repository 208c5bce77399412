"""The tool that searches file contents, with ripgrep where installed and grep where not.

A process of its own, because a regular expression can run for ever and a process can be killed.
"""

import re
import shutil
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated

import msgspec
from typing_extensions import override

from services.agent.core.modes import Effect
from services.agent.core.plan_dir import resolve
from services.agent.core.text import one_line
from services.agent.core.workspace import Workspace
from services.agent.tools.glob import SKIPPED
from services.agent.tools.processes.process import CappedOutput, run_command
from services.agent.tools.tool import BuiltinTool, Preview, ToolContext, ToolError, ToolOutcome
from services.backplane.timeouts import timeout

_SECONDS = 60.0
_NO_MATCH = 1  # the exit code of both programs when nothing matches
_LONGEST_LINE = 400
_MOST_LOCATIONS = 20
_HIT = re.compile(r"^(/.+?):(\d+):", re.MULTILINE)


class GrepArguments(msgspec.Struct):
    """Arguments of one call, as the model writes them."""

    pattern: Annotated[str, msgspec.Meta(description="An extended regular expression.")]
    path: Annotated[
        str, msgspec.Meta(description="A file or directory; the project by default.")
    ] = "."
    glob: Annotated[
        str | None, msgspec.Meta(description="Only files whose name matches, such as `*.py`.")
    ] = None
    ignore_case: bool = False


class Grep(BuiltinTool[GrepArguments]):
    """Searches below a path and returns `file:line:text`."""

    name = "grep"
    description = "Searches files for a regular expression and returns file:line:text."
    effect = Effect.READ

    def __init__(self) -> None:
        super().__init__(GrepArguments, kind="search")

    @override
    def describe(self, arguments: GrepArguments, workspace: Workspace) -> Preview:
        where = workspace.shown(arguments.path)
        path = workspace.absolute(arguments.path)
        title = one_line(f"Search {arguments.pattern} in {where}", 100)
        return Preview(title, target=path, locations=((path, None),))

    @override
    async def execute(self, arguments: GrepArguments, context: ToolContext) -> ToolOutcome:
        path = context.workspace.absolute(arguments.path)
        path = context.permit(path) or path
        output = CappedOutput(context.output_bytes)
        try:
            async with timeout(_SECONDS):
                exit_code = await run_command(
                    _command(arguments, path),
                    cwd=context.workspace.cwd,
                    environment=context.environment,
                    output=output,
                )
        except TimeoutError as error:
            raise ToolError(f"the search took more than {_SECONDS:g} s") from error
        except (OSError, ValueError) as error:
            raise ToolError(f"the search could not be started: {error}") from error
        text = output.text()
        if exit_code == _NO_MATCH and not text:
            return ToolOutcome("[nothing matches]")
        prefix = f"{resolve(context.workspace.cwd)}/"
        lines = [line.removeprefix(prefix).rstrip("\r") for line in text.rstrip("\n").split("\n")]
        is_error = exit_code not in {0, _NO_MATCH} and not lines
        shown = "\n".join(line[:_LONGEST_LINE] for line in lines)
        return ToolOutcome(shown, is_error=is_error, locations=_found(text))


def _found(text: str) -> tuple[tuple[Path, int | None], ...]:
    """Returns the first places that an output names."""
    hits = islice(_HIT.finditer(text), _MOST_LOCATIONS)
    return tuple((Path(hit[1]), int(hit[2])) for hit in hits)


def _command(arguments: GrepArguments, path: Path) -> Sequence[str]:
    case = ["-i"] if arguments.ignore_case else []
    if shutil.which("rg"):
        chosen = ["--glob", arguments.glob] if arguments.glob else []
        plain = ["--line-number", "--with-filename", "--no-heading", "--color=never"]
        return ["rg", *plain, *case, *chosen, "-e", arguments.pattern, "--", str(path)]
    chosen = [f"--include={arguments.glob}"] if arguments.glob else []
    skipped = [f"--exclude-dir={name}" for name in sorted(SKIPPED)]
    return ["grep", "-rnIHE", *case, *chosen, *skipped, "-e", arguments.pattern, "--", str(path)]

"""The tool that runs a shell command, in the editor's terminal where there is one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import acp
import msgspec
import structlog
from typing_extensions import override

from services.agent.core.editor import Content, EditorError, EditorRefusedError, Terminal
from services.agent.core.modes import Effect
from services.agent.core.text import cut_middle, one_line, quoted, visible
from services.agent.core.workspace import Workspace
from services.agent.tools.processes.background import BackgroundError, News, Watching
from services.agent.tools.processes.process import CappedOutput, run_command
from services.agent.tools.tool import BuiltinTool, Preview, ToolContext, ToolError, ToolOutcome
from services.backplane.timeouts import timeout

log = structlog.get_logger(__name__)

_Card = tuple[acp.schema.TerminalToolCallContent, ...]
_TITLE_CHARACTERS = 100
_QUIET = {"PAGER": "cat", "GIT_PAGER": "cat", "TERM": "dumb"}  # nothing that waits for a key


class BashArguments(msgspec.Struct):
    """Arguments of one call, as the model writes them."""

    command: Annotated[str, msgspec.Meta(description="The command, for `sh -c`.")]
    cwd: Annotated[
        str | None, msgspec.Meta(description="Where to run it; the project by default.")
    ] = None
    timeout_seconds: Annotated[
        float | None, msgspec.Meta(description="When to give up and kill it.")
    ] = None
    run_in_background: Annotated[
        bool, msgspec.Meta(description="For servers and watchers: go on at once; see bash_output.")
    ] = False


class Bash(BuiltinTool[BashArguments]):
    """Runs one command; its process group never outlives the call."""

    name = "bash"
    description = (
        "Runs a shell command and returns its output and exit code. It gets no input. "
        "Whatever it leaves in the background is ended with it; to keep something running, set "
        "run_in_background."
    )
    effect = Effect.EXECUTE

    def __init__(self) -> None:
        super().__init__(BashArguments, kind="execute")

    @override
    def describe(self, arguments: BashArguments, workspace: Workspace) -> Preview:
        return Preview(one_line(arguments.command, _TITLE_CHARACTERS) or "(empty command)")

    @override
    async def changes(self, arguments: BashArguments, context: ToolContext) -> Sequence[Content]:
        """Returns all of a command that its title does not show, for whoever has to allow it."""
        lines = [f"in {visible(arguments.cwd)}"] if arguments.cwd else []
        lines += ["in the background"] if arguments.run_in_background else []
        command = visible(arguments.command)
        if command != one_line(arguments.command, _TITLE_CHARACTERS):
            lines.insert(0, quoted(command))
        return (acp.tool_content(acp.text_block("\n".join(lines))),) if lines else ()

    @override
    async def execute(self, arguments: BashArguments, context: ToolContext) -> ToolOutcome:
        cwd = context.workspace.absolute(arguments.cwd or ".")
        if arguments.run_in_background:
            return await _in_background(arguments, cwd, context)
        seconds = context.bash_seconds
        if arguments.timeout_seconds is not None and arguments.timeout_seconds > 0:
            seconds = arguments.timeout_seconds
        if context.editor.offered.terminals:
            try:
                context.permit(None)
                command = ["sh", "-c", arguments.command]
                terminal = await context.editor.open_terminal(command, cwd, context.output_bytes)
            except EditorRefusedError as error:
                log.warning("no terminal, run locally instead", exc_info=error)
            except EditorError as error:  # it may have started: do not run it twice
                raise ToolError(f"the editor opened no terminal: {error}") from error
            else:
                return await _in_terminal(terminal, seconds, context)
        return await _locally(arguments.command, cwd, seconds, context)


async def _in_background(arguments: BashArguments, cwd: Path, context: ToolContext) -> ToolOutcome:
    """Starts a command of the session, never in the editor's terminal, which outlives the agent."""

    async def show(text: str) -> None:
        await context.progress((acp.tool_content(acp.text_block(text)),))

    async def ended(news: News) -> None:
        await context.finish(outcome_of(news))

    seconds = arguments.timeout_seconds
    context.permit(None)
    try:
        command = await context.background.start(
            arguments.command,
            cwd=cwd,
            environment={**context.environment, **_QUIET},
            seconds=seconds if seconds and seconds > 0 else None,
            output_bytes=context.output_bytes,
            watching=Watching(shown=show, ended=ended),
        )
    except BackgroundError as error:
        raise ToolError(str(error)) from error
    news = await command.news(0)
    if not command.is_running:
        return outcome_of(news)
    going_on = f"it goes on in the background as {command.name}; bash_output tells more"
    return ToolOutcome(with_ending(news.text, going_on), is_going_on=True)


async def _in_terminal(terminal: Terminal, seconds: float, context: ToolContext) -> ToolOutcome:
    """Follows a terminal to its end; leaving early, by whatever, kills what runs in it."""
    is_over = False
    card = (acp.tool_terminal_ref(terminal.id),)
    try:
        await context.progress(card)
        exit_code, note = None, ""
        try:
            async with timeout(seconds):
                exit_code = await terminal.wait()
            is_over = True
        except TimeoutError:
            await terminal.kill()
            note = f"killed after {seconds:g} s"
        output, truncated = await terminal.output()
    except EditorError as error:
        raise ToolError(f"the editor's terminal failed: {error}") from error
    finally:
        if is_over:
            await _released(terminal)
        else:
            await terminal.end()
    if truncated:
        note = f"{note}; the beginning was cut".removeprefix("; ")
    return _ended(cut_middle(output, context.output_bytes), exit_code, note, card)


async def _released(terminal: Terminal) -> None:
    try:
        await terminal.release()
    except EditorError as error:
        log.warning("terminal not released", terminal_id=terminal.id, exc_info=error)


async def _locally(command: str, cwd: Path, seconds: float, context: ToolContext) -> ToolOutcome:
    output = CappedOutput(context.output_bytes)

    async def show(text: str) -> None:
        await context.progress((acp.tool_content(acp.text_block(text)),))

    context.permit(None)
    try:
        async with timeout(seconds):
            exit_code = await run_command(
                ["sh", "-c", command],
                cwd=cwd,
                environment={**context.environment, **_QUIET},
                output=output,
                shown=show,
            )
    except TimeoutError:
        return _ended(output.text(), None, f"killed after {seconds:g} s", None)
    except (OSError, ValueError) as error:
        raise ToolError(f"the command could not be started: {error}") from error
    return _ended(output.text(), exit_code, "", None)


def outcome_of(news: News) -> ToolOutcome:
    """Returns what a background command printed lately, and how it is, as the model reads it."""
    return ToolOutcome(with_ending(news.text, news.ending), is_error=news.is_failure)


def _ended(output: str, exit_code: int | None, note: str, card: _Card | None) -> ToolOutcome:
    ending = note or ("" if exit_code == 0 else f"exit code {exit_code}")
    return ToolOutcome(with_ending(output, ending), is_error=exit_code != 0, content=card)


def with_ending(output: str, ending: str) -> str:
    """Returns what a command printed as the model reads it, its ending in brackets if any."""
    body = output.rstrip("\n") or "[no output]"
    return f"{body}\n[{ending}]" if ending else body

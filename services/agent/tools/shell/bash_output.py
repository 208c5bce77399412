"""The tools that follow and end commands in the background."""

from typing import Annotated

import msgspec
from typing_extensions import override

from services.agent.core.modes import Effect
from services.agent.core.text import one_line
from services.agent.core.workspace import Workspace
from services.agent.tools.processes.background import BackgroundCommand, BackgroundError
from services.agent.tools.shell.bash import outcome_of, with_ending
from services.agent.tools.tool import BuiltinTool, Preview, ToolContext, ToolError, ToolOutcome

_MOST_WAIT_SECONDS = 120.0

_Id = Annotated[str, msgspec.Meta(description="As bash named it, such as b1.")]


class BashOutputArguments(msgspec.Struct):
    """Arguments of one call, as the model writes them."""

    id: _Id
    wait_seconds: Annotated[
        float, msgspec.Meta(description="How long to wait for something new.")
    ] = 0.0


class BashKillArguments(msgspec.Struct):
    """Arguments of one call, as the model writes them."""

    id: _Id


class BashOutput(BuiltinTool[BashOutputArguments]):
    """Tells what a command has printed since the last time, and whether it still runs."""

    name = "bash_output"
    description = (
        "Returns what a background command has printed since it was last asked, "
        "and whether it still runs."
    )
    effect = Effect.NOTHING

    def __init__(self) -> None:
        super().__init__(BashOutputArguments, kind="execute")

    @override
    def describe(self, arguments: BashOutputArguments, workspace: Workspace) -> Preview:
        return Preview(one_line(f"Output of {arguments.id}", 100))

    @override
    async def execute(self, arguments: BashOutputArguments, context: ToolContext) -> ToolOutcome:
        command = _named(arguments.id, context)
        news = await command.news(min(max(arguments.wait_seconds, 0.0), _MOST_WAIT_SECONDS))
        if command.is_running:
            return ToolOutcome(with_ending(news.text, "it still runs"))
        return outcome_of(news)


class BashKill(BuiltinTool[BashKillArguments]):
    """Ends a command with all that it has started."""

    name = "bash_kill"
    description = "Ends a background command and everything that it has started."
    effect = Effect.NOTHING

    def __init__(self) -> None:
        super().__init__(BashKillArguments, kind="execute")

    @override
    def describe(self, arguments: BashKillArguments, workspace: Workspace) -> Preview:
        return Preview(one_line(f"End {arguments.id}", 100))

    @override
    async def execute(self, arguments: BashKillArguments, context: ToolContext) -> ToolOutcome:
        command = _named(arguments.id, context)
        await command.end("killed")
        news = await command.news(0)
        return ToolOutcome(with_ending(news.text, news.ending))


def _named(name: str, context: ToolContext) -> BackgroundCommand:
    try:
        return context.background.get(name)
    except BackgroundError as error:
        raise ToolError(str(error)) from error

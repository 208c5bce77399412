"""The tool that has a second model conversation search the project."""

from dataclasses import replace
from typing import Annotated

import msgspec
from typing_extensions import override

from services.agent.core.modes import Effect
from services.agent.core.text import cut_middle, one_line
from services.agent.core.workspace import Workspace
from services.agent.tools.tool import BuiltinTool, Preview, ToolContext, ToolError, ToolOutcome


class SearchAgentArguments(msgspec.Struct):
    """Arguments of one call, as the model writes them."""

    task: Annotated[
        str, msgspec.Meta(description="The whole question: the agent knows nothing else.")
    ]


class SearchAgent(BuiltinTool[SearchAgentArguments]):
    """Answers a question about the project without filling the context of who asks."""

    name = "search_agent"
    description = (
        "Has a second agent search the project and answer a question in a few lines. "
        "It can only read. Use it where many files would have to be read to find little."
    )
    effect = Effect.NOTHING  # what it reads passes the gate, call by call

    def __init__(self) -> None:
        super().__init__(SearchAgentArguments, kind="search")

    @override
    def describe(self, arguments: SearchAgentArguments, workspace: Workspace) -> Preview:
        if not arguments.task.strip():
            raise ToolError("task is empty")
        return Preview(one_line(f"Search: {arguments.task}", 100))

    @override
    async def execute(self, arguments: SearchAgentArguments, context: ToolContext) -> ToolOutcome:
        found = await context.search(arguments.task)
        return replace(found, text=cut_middle(found.text, context.output_bytes))

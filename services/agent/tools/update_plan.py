"""The tool by which a model shows its list of steps in the editor."""

from typing import Annotated, Literal

import acp
import acp.schema
import msgspec
from typing_extensions import override

from services.agent.core.modes import Effect
from services.agent.core.workspace import Workspace
from services.agent.tools.tool import BuiltinTool, Preview, ToolContext, ToolOutcome


class Step(msgspec.Struct):
    """One step of the list, as the editor shows it."""

    content: str
    status: Literal["pending", "in_progress", "completed"] = "pending"
    priority: Literal["high", "medium", "low"] = "medium"


class UpdatePlanArguments(msgspec.Struct):
    """Arguments of one call, as the model writes them."""

    steps: Annotated[list[Step], msgspec.Meta(description="The whole list; it replaces the last.")]


class UpdatePlan(BuiltinTool[UpdatePlanArguments]):
    """Shows the steps of a longer task and how far they are."""

    name = "update_plan"
    description = "Shows the user your list of steps and their status. For tasks of several steps."
    effect = Effect.NOTHING

    def __init__(self) -> None:
        super().__init__(UpdatePlanArguments, kind="think")

    @override
    def describe(self, arguments: UpdatePlanArguments, workspace: Workspace) -> Preview:
        done = sum(step.status == "completed" for step in arguments.steps)
        return Preview(f"Plan: {done} of {len(arguments.steps)} steps done")

    @override
    async def execute(self, arguments: UpdatePlanArguments, context: ToolContext) -> ToolOutcome:
        await context.editor.update(panel(arguments))
        return ToolOutcome("the plan is shown")


def panel(arguments: UpdatePlanArguments) -> acp.schema.AgentPlanUpdate:
    """Returns the update that shows a list of steps."""
    return acp.update_plan(
        [
            acp.plan_entry(step.content, priority=step.priority, status=step.status)
            for step in arguments.steps
        ]
    )

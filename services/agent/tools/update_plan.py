"""The tool by which a model shows its list of steps in the editor."""

from typing import Annotated, Literal

import acp
import msgspec

from services.agent.core.modes import Effect
from services.agent.core.workspace import Workspace
from services.agent.tools.tool import BuiltinTool, Outcome, Preview, ToolContext


class Step(msgspec.Struct):
    """One step."""

    content: str
    status: Literal["pending", "in_progress", "completed"] = "pending"
    priority: Literal["high", "medium", "low"] = "medium"


class Arguments(msgspec.Struct):
    """What the model gives."""

    steps: Annotated[list[Step], msgspec.Meta(description="The whole list; it replaces the last.")]


class UpdatePlan(BuiltinTool[Arguments]):
    """Shows the steps of a longer task and how far they are."""

    name = "update_plan"
    description = "Shows the user your list of steps and their status. For tasks of several steps."
    effect = Effect.NOTHING

    def __init__(self) -> None:
        super().__init__(Arguments, kind="think")

    def describe(self, arguments: Arguments, workspace: Workspace) -> Preview:
        """See `BuiltinTool.describe`."""
        done = sum(step.status == "completed" for step in arguments.steps)
        return Preview(f"Plan: {done} of {len(arguments.steps)} steps done")

    async def execute(self, arguments: Arguments, context: ToolContext) -> Outcome:
        """See `BuiltinTool.execute`."""
        entries = [
            acp.plan_entry(step.content, priority=step.priority, status=step.status)
            for step in arguments.steps
        ]
        await context.editor.update(acp.update_plan(entries))
        return Outcome("the plan is shown")

"""The tool by which a model that has written its plan asks to leave plan mode."""

from typing import Annotated

import acp
import acp.schema
import msgspec
from typing_extensions import override

from services.agent.core.modes import Effect, Mode
from services.agent.core.workspace import Workspace
from services.agent.tools.tool import BuiltinTool, Preview, ToolContext, ToolError, ToolOutcome

_OPTIONS = (
    acp.schema.PermissionOption(
        option_id=Mode.ACCEPT_EDITS.value, name="Implement, edits accepted", kind="allow_always"
    ),
    acp.schema.PermissionOption(
        option_id=Mode.DEFAULT.value, name="Implement step by step", kind="allow_once"
    ),
    acp.schema.PermissionOption(
        option_id=Mode.PLAN.value, name="Stay in plan mode", kind="reject_once"
    ),
)


class ExitPlanModeArguments(msgspec.Struct):
    """Arguments of one call, as the model writes them."""

    summary: Annotated[str, msgspec.Meta(description="The plan in a few lines, in Markdown.")]


class ExitPlanMode(BuiltinTool[ExitPlanModeArguments]):
    """Shows the plan's summary and lets the user choose the mode in which it goes on."""

    name = "exit_plan_mode"
    description = (
        "Asks the user whether the plan that you have written is to be implemented. "
        "Call it when the plan is complete, and go on as its result says."
    )
    effect = Effect.NOTHING

    def __init__(self) -> None:
        super().__init__(ExitPlanModeArguments, kind="switch_mode")

    @override
    def describe(self, arguments: ExitPlanModeArguments, workspace: Workspace) -> Preview:
        return Preview("Implement the plan?")

    @override
    async def execute(self, arguments: ExitPlanModeArguments, context: ToolContext) -> ToolOutcome:
        if context.mode() is not Mode.PLAN:
            raise ToolError("plan mode is over already; go on")
        content = (acp.tool_content(acp.text_block(arguments.summary)),)
        choice = await context.choose(_OPTIONS, content)
        if choice not in {Mode.ACCEPT_EDITS, Mode.DEFAULT}:
            raise ToolError("the user stays in plan mode; ask them what to change, and stop")
        if context.mode() is Mode.PLAN:  # else the user has switched it in the meantime
            await context.set_mode(Mode(choice))
        text = f"The user agrees; the mode is {context.mode().value} now. Implement the plan."
        return ToolOutcome(text, content=content)

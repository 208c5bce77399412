"""A stored history as the session updates that would have shown it."""

import contextlib
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import acp
import acp.schema
import msgspec

from services.agent.core.history import (
    AssistantTurn,
    ImagePart,
    ResultsTurn,
    ToolCall,
    ToolResult,
    Turn,
    UserTurn,
)
from services.agent.core.workspace import Workspace
from services.agent.tools.tool import Preview, Tool, ToolError
from services.agent.tools.update_plan import UpdatePlan, UpdatePlanArguments, panel


def replayed(
    turns: Sequence[Turn], *, tools: Mapping[str, Tool], workspace: Workspace
) -> Iterator[Any]:
    """Yields the updates of a whole history, in order, and the plan as it was left."""
    for turn in turns:
        message = str(uuid.uuid4())
        for update in _turn(turn, tools, workspace):
            yield identified(update, message)
    yield from _plan(turns)


def identified(update: Any, message: str) -> Any:
    """Returns the update; where it is a piece of a message, it now says of which."""
    if isinstance(update, acp.schema.ContentChunk):
        update.message_id = message
    return update


def _plan(turns: Sequence[Turn]) -> Iterator[Any]:
    """Yields the panel of the last call that filled it."""
    answers = [turn for turn in turns if isinstance(turn, AssistantTurn)]
    calls = [call for turn in answers for call in turn.calls if call.name == UpdatePlan.name]
    if calls:
        with contextlib.suppress(msgspec.ValidationError):
            yield panel(msgspec.convert(calls[-1].arguments, UpdatePlanArguments, strict=False))


def _turn(turn: Turn, tools: Mapping[str, Tool], workspace: Workspace) -> Iterator[Any]:
    if isinstance(turn, UserTurn):
        for part in turn.parts:
            if isinstance(part, ImagePart):
                yield acp.update_user_message(acp.image_block(part.data, part.mime_type))
            else:
                yield acp.update_user_message_text(part.text)
    elif isinstance(turn, AssistantTurn):
        yield from _answer(turn, tools, workspace)
    else:
        yield from _results(turn)


def _answer(turn: AssistantTurn, tools: Mapping[str, Tool], workspace: Workspace) -> Iterator[Any]:
    for thought in turn.thoughts:
        if thought.text:
            yield acp.update_agent_thought_text(thought.text)
    if turn.text:
        yield acp.update_agent_message_text(turn.text)
    for call in turn.calls:
        tool = tools.get(call.name)
        preview = _preview(call, tool, workspace)
        yield acp.start_tool_call(
            call.id,
            preview.title,
            kind=tool.kind if tool else "other",
            status="pending",
            locations=[
                acp.schema.ToolCallLocation(path=str(path), line=line)
                for path, line in preview.locations
            ],
            content=_diff(call, preview),
            raw_input=call.arguments,
        )


def _preview(call: ToolCall, tool: Tool | None, workspace: Workspace) -> Preview:
    if tool is None or call.arguments is None:
        return Preview(call.name or "unreadable tool call")
    try:
        return tool.preview(call.arguments, workspace)
    except ToolError:
        return Preview(call.name)


def _diff(call: ToolCall, preview: Preview) -> list[acp.schema.FileEditToolCallContent] | None:
    """Shows a past write by its arguments; the file itself may be quite different by now."""
    arguments = call.arguments or {}
    new = arguments.get("content", arguments.get("new_text"))
    old = arguments.get("old_text")
    if preview.target is None or not isinstance(new, str):
        return None
    old_text = old if isinstance(old, str) else None
    return [acp.tool_diff_content(str(preview.target), new, old_text)]


def _results(turn: ResultsTurn) -> Iterator[Any]:
    for result in turn.results:
        yield acp.update_tool_call(
            result.call_id,
            status="failed" if result.is_error else "completed",
            content=_content(result),
            raw_output=result.text,
        )


def _content(result: ToolResult) -> list[acp.schema.ContentToolCallContent] | None:
    """Leaves a diff on the card as it is; shows the text of everything else."""
    if result.name in {"write_file", "edit_file"} and not result.is_error:
        return None
    pictures = (acp.image_block(each.data, each.mime_type) for each in result.pictures)
    return [acp.tool_content(acp.text_block(result.text)), *map(acp.tool_content, pictures)]

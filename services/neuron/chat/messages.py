"""A canonical chat as the message dictionaries that Hugging Face templates expect. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from cortex.v1 import conversation_pb2 as conversation
from services.backplane.errors import FleetError, Reason
from services.neuron.chat.json_values import loads

Message = dict[str, Any]
_ROLES: Final = {
    conversation.ROLE_SYSTEM: "system",
    conversation.ROLE_USER: "user",
    conversation.ROLE_ASSISTANT: "assistant",
    conversation.ROLE_TOOL: "tool",
}


def to_messages(chat: conversation.Chat) -> list[Message]:
    """The turns of a chat.

    Content is always a string where a turn has no image, and never None: templates print `None`.
    Each tool result is a turn of its own, before the text of the turn that carried it, and results
    of parallel calls have the order of the calls: many templates tell no ids. Arguments of
    tool calls are objects, which templates iterate over, unless the model wrote no valid JSON.

    Raises:
        FleetError: BAD_REQUEST, a turn has no role.
    """
    messages: list[Message] = []
    parts = _parts_of_turns(chat)
    for index, turn in enumerate(chat.messages):
        role = _ROLES.get(turn.role)
        if role is None:
            raise FleetError(
                Reason.BAD_REQUEST, "The turn has no role.", field=f"messages.{index}.role"
            )
        messages.extend(_turn(role, turn.name, parts[index]))
    if not messages:
        raise FleetError(Reason.BAD_REQUEST, "The chat has no messages.", field="messages")
    return messages


def to_tools(chat: conversation.Chat) -> list[dict[str, Any]] | None:
    """The tools that the model is shown; None where there are none or none may be called.

    By name, in whatever order they came: clients that change it for no reason would have their
    whole conversation read anew.
    """
    if not chat.tools or chat.tool_choice.WhichOneof("mode") == "none":
        return None
    named = sorted(enumerate(chat.tools), key=lambda one: one[1].name)
    return [_tool(index, tool) for index, tool in named]


def has_images(chat: conversation.Chat) -> bool:
    """True if a turn has a picture, or a tool has answered with one."""
    return any(
        part.HasField("image") or any(each.HasField("image") for each in part.tool_result.parts)
        for turn in chat.messages
        for part in turn.parts
    )


def image_data(chat: conversation.Chat) -> tuple[bytes, ...]:
    """The pictures of a chat, in order."""
    if not has_images(chat):
        return ()
    parts: list[conversation.Part] = []
    for turn in _parts_of_turns(chat):
        for part in turn:
            parts.extend(part.tool_result.parts if part.HasField("tool_result") else [part])
    return tuple(part.image.data for part in parts if part.HasField("image"))


def concatenated(*contents: Any, between: str = "\n\n") -> Any:
    """The contents of some turns as that of one; each may be a string or a list of parts.

    `between` stands wherever a string meets another content; nothing stands around empty ones.
    """
    if all(isinstance(content, str) for content in contents):
        return between.join(filter(None, contents))
    whole: list[Any] = []
    is_behind_text = False
    for content in filter(None, contents):
        is_text = isinstance(content, str)
        if is_behind_text and not is_text:
            whole[-1] = {"type": "text", "text": whole[-1]["text"] + between}
        whole += _parts(between + content if is_text and whole else content)
        is_behind_text = is_text
    return whole


def runs(
    messages: Sequence[Message], belongs: Callable[[Message, Message], bool]
) -> Sequence[Sequence[Message]]:
    """The turns in runs: a turn that belongs behind the first of a run goes with it."""
    found: list[list[Message]] = []
    for message in messages:
        if found and belongs(found[-1][0], message):
            found[-1].append(message)
        else:
            found.append([message])
    return found


def _parts(content: Any) -> list[Any]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    parts: list[Any] = content
    return parts


def _parts_of_turns(chat: conversation.Chat) -> list[list[conversation.Part]]:
    """The parts of each turn, where the results behind calls have the order of these calls.

    A result whose id is none of the calls' keeps its place.
    """
    turns = [list(turn.parts) for turn in chat.messages]
    order: dict[str, int] = {}
    run: list[tuple[int, int]] = []  # where results to these calls stand
    for index, parts in enumerate(turns):
        for place, part in enumerate(parts):
            if part.HasField("tool_result") and part.tool_result.call_id in order:
                run.append((index, place))
        if all(part.HasField("tool_result") for part in parts):
            continue
        _sort(turns, run, order)
        run = []
        calls = [part.tool_call.call_id for part in parts if part.HasField("tool_call")]
        if calls:
            order = {call_id: number for number, call_id in enumerate(calls) if call_id}
    _sort(turns, run, order)
    return turns


def _sort(
    turns: list[list[conversation.Part]],
    places: Sequence[tuple[int, int]],
    order: Mapping[str, int],
) -> None:
    """Puts the results that stand in these places into them in the order of their calls."""
    results = [turns[index][place] for index, place in places]
    results.sort(key=lambda part: order[part.tool_result.call_id])
    for (index, place), part in zip(places, results, strict=True):
        turns[index][place] = part


def _turn(role: str, name: str, parts: Sequence[conversation.Part]) -> Iterable[Message]:
    calls: list[Message] = []
    reasoning: list[str] = []
    plain: list[conversation.Part] = []
    for part in parts:
        match part.WhichOneof("kind"):
            case "tool_result":
                yield _result(part.tool_result)
            case "tool_call":
                calls.append(_call(part.tool_call))
            case "reasoning":
                reasoning.append(part.reasoning.text)
            case "text" | "image":
                plain.append(part)
            case _:
                pass  # a kind of a newer contract; the rest of the turn still counts
    if not (plain or calls or reasoning) and any(part.HasField("tool_result") for part in parts):
        return
    message: Message = {"role": role, "content": _content(plain)}
    if name:
        message["name"] = name
    if reasoning:
        message["reasoning_content"] = "".join(reasoning)
    if calls:
        message["tool_calls"] = calls
    yield message


def _content(parts: Sequence[conversation.Part]) -> str | list[dict[str, str]]:
    if not any(part.HasField("image") for part in parts):
        return "".join(part.text for part in parts)
    return [
        {"type": "image"} if part.HasField("image") else {"type": "text", "text": part.text}
        for part in parts
    ]


def _call(call: conversation.ToolCall) -> Message:
    try:
        arguments: Any = loads(call.arguments_json or "{}")
    except ValueError:
        arguments = call.arguments_json
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.call_id, "type": "function", "function": function}


def _result(result: conversation.ToolResult) -> Message:
    message: Message = {
        "role": "tool",
        "content": _content(result.parts),
        "tool_call_id": result.call_id,
    }
    if result.name:
        message["name"] = result.name
    return message


def _tool(index: int, tool: conversation.Tool) -> dict[str, Any]:
    try:
        parameters: Any = loads(tool.parameters_schema_json or "{}")
    except ValueError as error:
        field = f"tools.{index}.parameters_schema_json"
        raise FleetError(Reason.BAD_REQUEST, f"Not JSON: {error}.", field=field) from error
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": parameters,
        },
    }

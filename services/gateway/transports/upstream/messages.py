"""Canonical turns as the `messages` of OpenAI's chat completions."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from types import MappingProxyType
from typing import Any, Final

from cortex.v1 import conversation_pb2 as conversation
from services.backplane.errors import FleetError, Reason

_ROLES: Final = MappingProxyType(
    {
        conversation.ROLE_SYSTEM: "system",
        conversation.ROLE_USER: "user",
        conversation.ROLE_ASSISTANT: "assistant",
        conversation.ROLE_TOOL: "tool",
    }
)


def messages_of(chat: conversation.Chat, *, with_reasoning: bool) -> list[dict[str, Any]]:
    """All turns, in order.

    Args:
        chat: the conversation.
        with_reasoning: what the model thought in earlier turns goes along, as `reasoning_content`;
            OpenAI's own API has no place for it.

    Raises:
        FleetError: UNSUPPORTED_FIELD for what has no form there.
    """
    found: list[dict[str, Any]] = []
    for index, turn in enumerate(chat.messages):
        found.extend(_turn(turn, f"messages.{index}", with_reasoning=with_reasoning))
    return found


def _turn(
    turn: conversation.Message, path: str, *, with_reasoning: bool
) -> Iterator[dict[str, Any]]:
    plain: list[conversation.Part] = []
    calls: list[dict[str, Any]] = []
    reasoning: list[str] = []
    results = 0
    for part in turn.parts:
        match part.WhichOneof("kind"):
            case "tool_result":
                results += 1
                yield _result(part.tool_result, path)
            case "tool_call":
                calls.append(_call(part.tool_call))
            case "reasoning":
                reasoning.append(part.reasoning.text)
            case _:
                plain.append(part)
    if results and not (plain or calls or reasoning):
        return
    message: dict[str, Any] = {"role": _ROLES.get(turn.role, "user"), "content": _content(plain)}
    if turn.name:
        message["name"] = turn.name
    if reasoning and with_reasoning:
        message["reasoning_content"] = "".join(reasoning)
    if calls:
        message["content"] = message["content"] or None
        message["tool_calls"] = calls
    yield message


def _content(parts: Iterable[conversation.Part]) -> str | list[dict[str, Any]]:
    found = list(parts)
    if all(part.WhichOneof("kind") == "text" for part in found):
        return "".join(part.text for part in found)
    return [_part(part) for part in found]


def _part(part: conversation.Part) -> dict[str, Any]:
    if part.WhichOneof("kind") == "text":
        return {"type": "text", "text": part.text}
    data = base64.b64encode(part.image.data).decode()
    url = f"data:{part.image.mime_type};base64,{data}"
    return {"type": "image_url", "image_url": {"url": url}}


def _call(call: conversation.ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments_json or "{}"}
    return {"id": call.call_id, "type": "function", "function": function}


def _result(result: conversation.ToolResult, path: str) -> dict[str, Any]:
    if any(part.WhichOneof("kind") != "text" for part in result.parts):
        raise FleetError(
            Reason.UNSUPPORTED_FIELD,
            f"{path}: a tool's result with pictures cannot be sent to the server that has the"
            " model.",
            field=path,
        )
    text = "".join(part.text for part in result.parts)
    return {"role": "tool", "tool_call_id": result.call_id, "content": text}

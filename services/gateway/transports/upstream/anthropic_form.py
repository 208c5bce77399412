"""A canonical chat as Anthropic's messages: the form in which servers count tokens.

Source: Anthropic API reference, messages/count_tokens.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from cortex.v1 import conversation_pb2 as conversation
from services.backplane.errors import FleetError, Reason

_NO_SCHEMA: Final = msgspec.Raw(b'{"type":"object"}')
_MODES: Final = {"auto": "auto", "none": "none", "required": "any"}


def count_body(chat: conversation.Chat, *, model: str) -> bytes:
    """What is posted to have a chat counted.

    What the model thought in earlier turns is left out: its proof is this fleet's own.

    Args:
        chat: the conversation.
        model: as the server calls it.

    Raises:
        FleetError: UNSUPPORTED_FIELD: variables of the chat template.
    """
    if chat.template_variables_json:
        told = "chat_template_kwargs: cannot be told to a server that counts in Anthropic's form."
        raise FleetError(Reason.UNSUPPORTED_FIELD, told, field="chat_template_kwargs")
    system: list[dict[str, Any]] = []
    turns: list[dict[str, Any]] = []
    for message in chat.messages:
        blocks = list(_blocks(message.parts))
        if message.role == conversation.ROLE_SYSTEM:
            system += blocks
            continue
        role = "assistant" if message.role == conversation.ROLE_ASSISTANT else "user"
        if turns and turns[-1]["role"] == role:  # they take turns there
            turns[-1]["content"] += blocks
        elif blocks:
            turns.append({"role": role, "content": blocks})
    body: dict[str, Any] = {"model": model, "messages": turns}
    if system:
        body["system"] = system
    if chat.tools:
        body["tools"] = [_tool(one) for one in chat.tools]
        mode = chat.tool_choice.WhichOneof("mode")
        if mode == "named":
            body["tool_choice"] = {"type": "tool", "name": chat.tool_choice.named}
        elif mode is not None:
            body["tool_choice"] = {"type": _MODES[mode]}
    return msgspec.json.encode(body)


def _blocks(parts: Iterable[conversation.Part]) -> Iterator[dict[str, Any]]:
    for part in parts:
        match part.WhichOneof("kind"):
            case "text":
                if part.text:  # an empty block is refused there
                    yield {"type": "text", "text": part.text}
            case "image":
                data = base64.b64encode(part.image.data).decode()
                source = {"type": "base64", "media_type": part.image.mime_type, "data": data}
                yield {"type": "image", "source": source}
            case "tool_call":
                call = part.tool_call
                given = _object(call.arguments_json)
                yield {"type": "tool_use", "id": call.call_id, "name": call.name, "input": given}
            case "tool_result":
                result = part.tool_result
                made: dict[str, Any] = {"type": "tool_result", "tool_use_id": result.call_id}
                made["content"] = list(_blocks(result.parts))
                if result.is_error:
                    made["is_error"] = True
                yield made
            case _:
                pass


def _object(arguments: str) -> object:
    """Arguments of a call, an empty object where they are none."""
    try:
        msgspec.json.decode(arguments, type=dict[str, msgspec.Raw])
    except (msgspec.MsgspecError, RecursionError):
        return {}
    return msgspec.Raw(arguments.encode())


def _tool(tool: conversation.Tool) -> dict[str, Any]:
    found: dict[str, Any] = {"name": tool.name}
    if tool.description:
        found["description"] = tool.description
    schema = tool.parameters_schema_json
    found["input_schema"] = msgspec.Raw(schema.encode()) if schema else _NO_SCHEMA
    return found

"""Chat messages into canonical turns.

Every shape that real clients send is read: content as text, parts, null or absent; arguments as
text or object; the old `function` role; reasoning that was echoed back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from cortex.v1 import conversation_pb2 as conversation
from services.gateway.dialects.common import images, turns
from services.gateway.dialects.common.json_body import bad, encode_text, unsupported
from services.gateway.dialects.openai_chat.fields import CalledFunction, ChatMessage, ContentPart

_SPEAKERS: Final = {
    "user": conversation.ROLE_USER,
    "system": conversation.ROLE_SYSTEM,
    "developer": conversation.ROLE_SYSTEM,
}
_TEXT_KINDS: Final = frozenset({"text", "input_text", "output_text"})


def fill_turns(messages: Sequence[ChatMessage], chat: conversation.Chat) -> None:
    """Writes canonical turns, one per message and in the same order.

    Raises:
        FleetError: BAD_REQUEST or UNSUPPORTED_FIELD with the path of what cannot be read.
    """
    if not messages:
        raise bad("messages", "must hold at least one message.")
    names: dict[str, str] = {}
    added, add_text = chat.messages.add, turns.add_text
    for index, one in enumerate(messages):
        role, content = _SPEAKERS.get(one.role), one.content
        if role is not None and isinstance(content, str):
            # What nearly all messages are, written in place: protobuf copies what it is given, and
            # takes twice as long for fields that are arguments.
            turn = added()
            turn.role = role
            if one.name:
                turn.name = one.name
            add_text(turn, content)
        else:
            turns.write_turn(_turn(one, f"messages.{index}", names), chat)


def _turn(one: ChatMessage, path: str, names: dict[str, str]) -> turns.Turn:
    match one.role:
        case "user":
            return turns.Turn(conversation.ROLE_USER, _user_parts(one, path), one.name or "")
        case "assistant":
            parts = list(_assistant_parts(one, path, names))
            return turns.Turn(conversation.ROLE_ASSISTANT, parts, one.name or "")
        case "tool":
            if one.tool_call_id is None:
                raise bad(f"{path}.tool_call_id", "Field required.")
            return turns.result(one.tool_call_id, _parts(one, path), names=names)
        case "function":
            call_id = one.name or ""
            return turns.result(call_id, _parts(one, path), names={call_id: call_id})
        case "system" | "developer":
            return turns.Turn(conversation.ROLE_SYSTEM, _parts(one, path), one.name or "")
        case _:
            raise bad(
                f"{path}.role",
                f"{one.role!r} is none of system, developer, user, assistant, tool, function.",
            )


def _user_parts(one: ChatMessage, path: str) -> list[turns.Part]:
    if one.content is None:
        raise bad(f"{path}.content", "Expected text or a list of parts, got null.")
    return _parts(one, path)


def _parts(one: ChatMessage, path: str) -> list[turns.Part]:
    content = one.content
    if content is None:
        return []
    if isinstance(content, str):
        return [turns.Text(content)]
    return [_part(part, f"{path}.content.{index}") for index, part in enumerate(content)]


def _part(part: ContentPart, path: str) -> turns.Part:
    if part.type in _TEXT_KINDS:
        if part.text is None:
            raise bad(f"{path}.text", "Field required.")
        return turns.Text(part.text)
    if part.type in {"image_url", "input_image"}:
        found = part.image_url
        if found is None:
            raise bad(f"{path}.image_url", "Field required.")
        if isinstance(found, str):
            return images.from_url(found, f"{path}.image_url")
        return images.from_url(found.url, f"{path}.image_url.url")
    if part.type == "refusal":
        return turns.Text(part.refusal or "")
    if part.type == "thinking":
        return turns.Reasoning(part.thinking or part.text or "")
    raise unsupported(f"{path}.type", f"parts of type {part.type!r} are not supported.")


def _assistant_parts(one: ChatMessage, path: str, names: dict[str, str]) -> Iterator[turns.Part]:
    thought = one.reasoning_content or one.reasoning
    if isinstance(thought, str) and thought:
        yield turns.Reasoning(thought)
    yield from (part for part in _parts(one, path) if part != turns.Text(""))
    if one.refusal and not one.content:
        yield turns.Text(one.refusal)
    for index, called in enumerate(one.tool_calls or ()):
        if not called.function.name:
            raise bad(f"{path}.tool_calls.{index}.function.name", "must not be empty.")
        call_id = called.id or f"call_{index}"
        names[call_id] = called.function.name
        yield turns.Call(call_id, called.function.name, _arguments(called.function))
    if one.function_call is not None:
        # The old form has no ids: the function's name ties result to call.
        name = one.function_call.name
        yield turns.Call(name, name, _arguments(one.function_call))


def _arguments(called: CalledFunction) -> str:
    found = called.arguments
    if found is None or isinstance(found, str):
        return found or ""
    return encode_text(found)

"""Makes the parts and messages of a canonical conversation."""

from __future__ import annotations

from collections.abc import Iterable

from cortex.v1 import conversation_pb2 as conversation


def text(value: str) -> conversation.Part:
    """A piece of text."""
    return conversation.Part(text=value)


def reasoning(value: str, signature: str = "") -> conversation.Part:
    """Reasoning of the model in an earlier turn."""
    return conversation.Part(reasoning=conversation.ReasoningPart(text=value, signature=signature))


def call(call_id: str, name: str, arguments_json: str) -> conversation.Part:
    """A call that the model made in an earlier turn; empty arguments become `{}`."""
    return conversation.Part(
        tool_call=conversation.ToolCall(
            call_id=call_id, name=name, arguments_json=arguments_json or "{}"
        )
    )


def message(
    role: conversation.Role.ValueType, parts: Iterable[conversation.Part], name: str | None = None
) -> conversation.Message:
    """One turn."""
    return conversation.Message(role=role, parts=parts, name=name or "")


def result(
    call_id: str,
    parts: Iterable[conversation.Part],
    *,
    names: dict[str, str],
    is_error: bool | None = False,
) -> conversation.Message:
    """The message with the result of one call; `names` has the tool of each call so far."""
    found = conversation.ToolResult(
        call_id=call_id, parts=parts, is_error=bool(is_error), name=names.get(call_id, "")
    )
    return conversation.Message(
        role=conversation.ROLE_TOOL, parts=(conversation.Part(tool_result=found),)
    )

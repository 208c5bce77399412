"""Collected events into one message; errors and usage in the API's shape."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason
from services.gateway.dialects import signature
from services.gateway.dialects.anthropic_messages.decode import Detail
from services.gateway.dialects.dialect import Ask, Collected, Head
from services.gateway.dialects.reading import encode

_STOP_REASONS: Final = {
    generation.FINISH_REASON_END_OF_TURN: "end_turn",
    generation.FINISH_REASON_STOP_STRING: "stop_sequence",
    generation.FINISH_REASON_MAX_TOKENS: "max_tokens",
    generation.FINISH_REASON_TOOL_CALLS: "tool_use",
}


def message_id(head: Head) -> str:
    """The message's id, from the request's."""
    return "msg_" + head.request_id


def body(ask: Ask, head: Head, choices: Sequence[Collected]) -> bytes:
    """The whole response."""
    (one,) = choices
    detail: Detail = ask.detail
    content = list(_blocks(one, detail))
    called = any(block["type"] == "tool_use" for block in content)
    return encode(
        {
            "id": message_id(head),
            "type": "message",
            "role": "assistant",
            "model": ask.model,
            "content": content,
            **stop_fields(one.finished, called=called),
            "usage": usage_object(one.finished.usage) | {"service_tier": "standard"},
        }
    )


def _blocks(one: Collected, detail: Detail) -> Iterable[dict[str, Any]]:
    for kind, value in one.parts:
        if kind == "text" and value:
            yield {"type": "text", "text": value, "citations": None}
        elif kind == "reasoning" and value:
            shown = value if detail.shows_thinking else ""
            signed = signature.sign(value, carry=not detail.shows_thinking)
            yield {"type": "thinking", "thinking": shown, "signature": signed}
        elif kind == "tool_call":
            yield {
                "type": "tool_use",
                "id": value.call_id,
                "name": value.name,
                "input": _arguments(value.arguments_json),
            }


def _arguments(arguments_json: str) -> Any:
    """The arguments as the object that the API promises; what is none is kept under one key."""
    try:
        found = msgspec.json.decode(arguments_json or "{}")
    except msgspec.DecodeError:
        found = arguments_json
    return found if isinstance(found, dict) else {"arguments": found}


def stop_fields(finished: generation.GenerationFinished, *, called: bool) -> dict[str, Any]:
    """Why the message ended. A call that was made counts: agents run tools only then."""
    reason = _STOP_REASONS.get(finished.reason, "end_turn")
    if called and reason in {"end_turn", "stop_sequence"}:
        reason = "tool_use"
    return {
        "stop_reason": reason,
        "stop_sequence": finished.stop_string if reason == "stop_sequence" else None,
        "stop_details": None,
    }


def usage_object(usage: generation.Usage) -> dict[str, Any]:
    """`usage`; what came from the cache is no part of `input_tokens` in this API."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_prompt_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }


def wording(error: FleetError) -> str:
    """The message; too long a prompt in the words that clients of this API look for."""
    facts = error.facts
    if error.reason is Reason.CONTEXT_TOO_LONG and "max_context_tokens" in facts:
        measured, most = facts.get("prompt_tokens", "?"), facts["max_context_tokens"]
        return f"prompt is too long: {measured} tokens > {most} maximum"
    return error.message


def envelope(error: FleetError, head: Head | None) -> bytes:
    """The body of a refused request, and the data of a stream's `error` event."""
    return encode(
        {
            "type": "error",
            "error": {"type": error.reason.row.anthropic_type, "message": wording(error)},
            "request_id": head.request_id if head else None,
        }
    )

"""Whole messages, usage and counts in the shape of the Anthropic API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import msgspec

from cortex.v1 import generation_pb2 as generation
from services.gateway.dialects.anthropic_messages.decode import MessageDetail, is_beta
from services.gateway.dialects.common import signature
from services.gateway.dialects.common.json_body import cut_call, encode, object_of
from services.gateway.dialects.dialect import Collected, DecodedRequest, Head

_STOP_REASONS: Final = {
    generation.FINISH_REASON_END_OF_TURN: "end_turn",
    generation.FINISH_REASON_STOP_STRING: "stop_sequence",
    generation.FINISH_REASON_MAX_TOKENS: "max_tokens",
    generation.FINISH_REASON_TOOL_CALLS: "tool_use",
}


def message_id(head: Head) -> str:
    """The message's id, from the request's."""
    return "msg_" + head.request_id


def body(decoded: DecodedRequest, head: Head, choices: Sequence[Collected]) -> bytes:
    """The whole response."""
    (one,) = choices
    detail: MessageDetail = decoded.detail
    if detail.only_prefills:
        return encode(message(decoded, head, (), prefill_end(), prefill_usage(one.finished.usage)))
    content = list(_blocks(one, detail))
    end = stop_fields(one.finished, called=one.is_to_be_called())
    return encode(message(decoded, head, content, end, one.finished.usage))


def message(
    decoded: DecodedRequest,
    head: Head,
    content: Sequence[Any],
    end: dict[str, Any],
    usage: generation.Usage,
) -> dict[str, Any]:
    """The message object: of a whole answer, and of a stream's first event."""
    detail: MessageDetail = decoded.detail
    told: dict[str, Any] = {
        "id": message_id(head),
        "type": "message",
        "role": "assistant",
        "model": decoded.model,
        "content": content,
        **end,
        "container": None,
        "usage": {**usage_object(usage, detail), **_GENERAL_USAGE},
    }
    if detail.is_beta:
        told["usage"]["speed"] = "standard"
        told |= {"diagnostics": None, "context_management": edits(detail)}
    return told


class MessageAnswer(msgspec.Struct):
    """The fields of a whole message; it describes what `body` writes."""

    id: str
    type: str
    role: str
    model: str
    content: list[dict[str, Any]]
    stop_reason: str | None
    stop_sequence: str | None
    usage: dict[str, Any]


class CountAnswer(msgspec.Struct):
    """The fields of a count."""

    input_tokens: int
    context_management: dict[str, int] | None = None


def edits(detail: MessageDetail) -> dict[str, Any] | None:
    """`context_management`: that no edit was applied, where some were asked for."""
    return {"applied_edits": []} if detail.edits_context else None


NO_END: Final[Mapping[str, Any]] = MappingProxyType(
    {"stop_reason": None, "stop_sequence": None, "stop_details": None}
)


def prefill_end() -> dict[str, Any]:
    """The end of a message that was only to fill the cache (`max_tokens: 0`)."""
    return {**NO_END, "stop_reason": "max_tokens"}


def _blocks(one: Collected, detail: MessageDetail) -> Iterable[dict[str, Any]]:
    for kind, value in one.parts:
        if kind == "text" and value:
            yield _text(value)
        elif kind == "reasoning" and value:
            shown = value if detail.shows_thinking else ""
            signed = signature.sign(value, carry=not detail.shows_thinking)
            yield {"type": "thinking", "thinking": shown, "signature": signed}
        elif kind == "tool_call" and value.is_cut:
            yield _text(cut_call(value.name, value.arguments_json))
        elif kind == "tool_call":
            yield {
                **call_head(value.call_id, value.name),
                "input": object_of(value.arguments_json),
            }


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text, "citations": None}


def call_head(call_id: str, name: str) -> dict[str, Any]:
    """A `tool_use` block without its input. The model calls tools itself, never by code."""
    return {"type": "tool_use", "id": call_id, "name": name, "caller": {"type": "direct"}}


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


def usage_object(usage: generation.Usage, detail: MessageDetail) -> dict[str, Any]:
    """The `usage` object; in this API cached tokens are no part of `input_tokens`."""
    told: dict[str, Any] = {
        "input_tokens": usage.prompt_tokens - usage.cached_prompt_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_prompt_tokens,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
        "server_tool_use": None,
    }
    return told | {"iterations": None} if detail.is_beta else told


# What the usage of a whole message has and that of its last event has not.
_GENERAL_USAGE: Final[Mapping[str, Any]] = MappingProxyType(
    {"cache_creation": None, "inference_geo": None, "service_tier": "standard"}
)


def prefill_usage(usage: generation.Usage) -> generation.Usage:
    """The usage without the one token that an engine has to generate."""
    return generation.Usage(
        prompt_tokens=usage.prompt_tokens, cached_prompt_tokens=usage.cached_prompt_tokens
    )


def count(tokens: int, head: Head, *, edits_context: bool) -> bytes:
    """The answer to a count. No edit is applied to the context, so it is the original's too."""
    told: dict[str, Any] = {"input_tokens": tokens}
    if is_beta(head):
        original = {"original_input_tokens": tokens} if edits_context else None
        told["context_management"] = original
    return encode(told)

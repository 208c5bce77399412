"""Collected events into one chat completion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from services.gateway.dialects.common import openai_body
from services.gateway.dialects.common.json_body import encode
from services.gateway.dialects.dialect import Collected, CollectedToolCall, DecodedRequest, Head
from services.gateway.dialects.openai_chat.decode import ChatDetail


def completion_id(head: Head) -> str:
    """The completion's id, from the request's."""
    return "chatcmpl-" + head.request_id


class ChatAnswer(msgspec.Struct):
    """The fields of a whole response; it describes what `body` writes."""

    id: str
    object: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: openai_body.UsageAnswer
    service_tier: str


class ChatChoice(msgspec.Struct):
    """One choice of it."""

    index: int
    message: ChatAnswerMessage
    logprobs: dict[str, Any] | None
    finish_reason: str


class ChatAnswerMessage(msgspec.Struct):
    """What the model says, thinks and calls."""

    role: str
    content: str | None
    refusal: str | None
    reasoning_content: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    function_call: dict[str, str] | None = None


def body(decoded: DecodedRequest, head: Head, choices: Sequence[Collected]) -> bytes:
    """The whole response."""
    detail: ChatDetail = decoded.detail
    usage = openai_body.total(one.finished.usage for one in choices)
    return encode(
        {
            "id": completion_id(head),
            "object": "chat.completion",
            "created": head.created_unix_seconds,
            "model": decoded.model,
            "choices": [_choice(index, one, detail) for index, one in enumerate(choices)],
            "usage": openai_body.usage_object(usage),
            "service_tier": "default",
        }
    )


def _choice(index: int, one: Collected, detail: ChatDetail) -> dict[str, Any]:
    calls = one.tool_calls()
    is_called = bool(calls) and one.is_to_be_called()
    reason = openai_body.finish_reason(one.finished.reason, called=is_called)
    if detail.old_functions and reason == "tool_calls":
        reason = "function_call"
    logprobs = None
    if detail.logprobs:
        logprobs = {"content": openai_body.logprob_objects(one.logprobs), "refusal": None}
    return {
        "index": index,
        "message": _message(one, calls, detail),
        "logprobs": logprobs,
        "finish_reason": reason,
    }


def _message(
    one: Collected, calls: Sequence[CollectedToolCall], detail: ChatDetail
) -> dict[str, Any]:
    text, reasoning = one.text(), one.reasoning()
    found: dict[str, Any] = {
        "role": "assistant",
        "content": text if text or not calls else None,
        "refusal": None,
    }
    if reasoning:
        found["reasoning_content"] = reasoning
    if calls and detail.old_functions:
        found["function_call"] = {"name": calls[0].name, "arguments": calls[0].arguments_json}
    elif calls:
        found["tool_calls"] = [
            {
                "id": call.call_id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments_json},
            }
            for call in calls
        ]
    return found

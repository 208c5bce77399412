"""Messages bodies, and what becomes of them."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError
from services.gateway.dialects.anthropic_messages.routes import AnthropicMessages
from tests.unit.gateway.dialects import decoding
from tests.unit.gateway.dialects.answers import HEAD, Answer, Segment

TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {}}}


def request_of(**fields: Any) -> generation.GenerateRequest:
    _, decoded = decoding.messages(**fields)
    return decoded.requests[0]


def conversed(*messages: dict[str, Any], **fields: Any) -> list[conversation.Message]:
    return list(request_of(messages=list(messages), **fields).chat.messages)


def refusal(body: dict[str, Any], **headers: str) -> FleetError:
    with pytest.raises(FleetError) as raised:
        decoding.decode(AnthropicMessages(), body, **headers)
    return raised.value


def body_of(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 9, "messages": decoding.HELLO} | fields


BETA = msgspec.structs.replace(HEAD, query={"beta": "true"})


ANSWER = Answer(
    (
        Segment("reasoning", "hm"),
        Segment("text", "so"),
        Segment("tool_call", '{"a":1}', "run"),
    ),
    generation.FINISH_REASON_TOOL_CALLS,
)


BOTH = pytest.mark.parametrize("headers", [{}, {"anthropic-beta": "x"}], ids=["plain", "beta"])


def valid_body(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 100, "messages": decoding.HELLO} | fields


def chat_of(**fields: Any) -> conversation.Chat:
    return decoding.decode(AnthropicMessages(), valid_body(**fields)).requests[0].chat


def refusal_with(found: dict[str, Any], headers: dict[str, str]) -> FleetError:
    with pytest.raises(FleetError) as raised:
        decoding.decode(AnthropicMessages(), found, **headers)
    return raised.value


def said(*blocks: dict[str, Any]) -> list[conversation.Message]:
    return list(chat_of(messages=[{"role": "user", "content": list(blocks)}]).messages)

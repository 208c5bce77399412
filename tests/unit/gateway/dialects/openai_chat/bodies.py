"""Chat completion bodies, and what becomes of them."""

from __future__ import annotations

from typing import Any

import pytest

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError
from services.gateway.dialects.openai_chat.routes import OpenAIChat
from tests.unit.gateway.dialects import decoding

TOOL = {
    "type": "function",
    "function": {
        "name": "f",
        "description": "d",
        "parameters": {"type": "object", "properties": {"z": {}, "a": {}}},
        "strict": True,
    },
}


def request_of(**fields: Any) -> generation.GenerateRequest:
    _, decoded = decoding.chat(**fields)
    return decoded.requests[0]


def refusal(body: dict[str, Any] | bytes) -> FleetError:
    with pytest.raises(FleetError) as raised:
        decoding.decode(OpenAIChat(), body)
    return raised.value


def body_of(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": decoding.HELLO} | fields


def with_message(message: Any) -> dict[str, Any]:
    return body_of(messages=[message])

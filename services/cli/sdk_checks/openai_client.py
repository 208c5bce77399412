"""What the checks of the openai SDK share: a client, a question, a tool, an answer's shape."""

from __future__ import annotations

from typing import Any, Final

import openai
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from openai.types.responses import FunctionToolParam
from pydantic import BaseModel, ConfigDict

from services.cli.sdk_checks.suite import Target

ASK: Final[list[ChatCompletionMessageParam]] = [{"role": "user", "content": "Say hello."}]

PARAMETERS: Final[dict[str, object]] = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}

TOOLS: Final[list[ChatCompletionToolParam]] = [
    {"type": "function", "function": {"name": "add", "parameters": PARAMETERS, "strict": True}}
]

RESPONSE_TOOL: Final[FunctionToolParam] = {
    "type": "function",
    "name": "add",
    "parameters": PARAMETERS,
    "strict": True,
}


class Sum(BaseModel):
    """A shape to be filled."""

    model_config = ConfigDict(extra="forbid")
    a: int
    b: int


def client(target: Target) -> openai.OpenAI:
    """One that hides no failure behind a retry."""
    return openai.OpenAI(base_url=f"{target.url}/v1", api_key="none", max_retries=0, timeout=120)


def expect_sum(calls: Any) -> None:
    """Fails unless the first of a message's tool calls has arguments that fit `TOOLS`."""
    assert calls
    assert calls[0].function.name == "add"
    Sum.model_validate_json(calls[0].function.arguments)

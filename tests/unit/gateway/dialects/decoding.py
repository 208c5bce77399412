"""The same plain request in every dialect, decoded."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from services.gateway.dialects.anthropic_messages.routes import AnthropicMessages
from services.gateway.dialects.dialect import DecodedRequest, Dialect
from services.gateway.dialects.ollama.routes import OllamaChat
from services.gateway.dialects.openai_chat.routes import OpenAIChat
from services.gateway.dialects.openai_completions.routes import OpenAICompletions
from services.gateway.dialects.openai_responses.routes import OpenAIResponses
from services.gateway.dialects.openai_responses.store.store import ResponsesStore
from tests.unit.gateway.dialects.answers import HEAD


def decode(dialect: Dialect, body: dict[str, Any] | bytes, **headers: str) -> DecodedRequest:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return dialect.decode(raw, msgspec.structs.replace(HEAD, headers=headers))


HELLO = [{"role": "user", "content": "hello"}]


def chat(**fields: Any) -> tuple[OpenAIChat, DecodedRequest]:
    dialect = OpenAIChat()
    return dialect, decode(dialect, {"model": "m", "stream": True, "messages": HELLO} | fields)


def completion(**fields: Any) -> tuple[OpenAICompletions, DecodedRequest]:
    dialect = OpenAICompletions()
    return dialect, decode(dialect, {"model": "m", "stream": True, "prompt": "hello"} | fields)


def messages(**fields: Any) -> tuple[AnthropicMessages, DecodedRequest]:
    dialect = AnthropicMessages()
    body = {"model": "m", "stream": True, "max_tokens": 100, "messages": HELLO}
    return dialect, decode(dialect, body | fields)


def responses(store: ResponsesStore, **fields: Any) -> tuple[OpenAIResponses, DecodedRequest]:
    dialect = OpenAIResponses(store, new_id=lambda: "resp_0123")
    return dialect, decode(dialect, {"model": "m", "stream": True, "input": "hello"} | fields)


def ollama(**fields: Any) -> tuple[OllamaChat, DecodedRequest]:
    dialect = OllamaChat()
    return dialect, decode(dialect, {"model": "m", "messages": HELLO} | fields)

"""Responses bodies, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from services.gateway.dialects.dialect import Head
from services.gateway.dialects.openai_responses import stored
from services.gateway.dialects.openai_responses.background import BackgroundRuns
from services.gateway.dialects.openai_responses.routes import OpenAIResponses
from services.gateway.dialects.openai_responses.store.store import ResponsesStore
from tests.unit.gateway.dialects import decoding
from tests.unit.gateway.dialects.answers import HEAD, Answer, Segment, collect, events_of

TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}


ANSWER = Answer((Segment("reasoning", "hm"), Segment("text", "hi")))


def request_of(store: ResponsesStore, **fields: Any) -> generation.GenerateRequest:
    _, decoded = decoding.responses(store, **fields)
    return decoded.requests[0]


def conversed(store: ResponsesStore, *items: Any, **fields: Any) -> list[conversation.Message]:
    return list(request_of(store, input=list(items), **fields).chat.messages)


def told(keeper: ResponsesStore, **fields: Any) -> dict[str, Any]:
    """An answered request: the response object."""
    dialect = OpenAIResponses(keeper)
    decoded = decoding.decode(dialect, {"model": "m", "input": "hello"} | fields)
    found = json.loads(dialect.body(decoded, HEAD, [collect(ANSWER, events_of(ANSWER))]))
    assert isinstance(found, dict)
    return found


async def look_up(
    kind: type[stored.RetrieveResponse | stored.DeleteResponse],
    store: ResponsesStore,
    response_id: str,
    principal: str = "",
) -> dict[str, Any]:
    head = Head("r", {}, {}, 1, path={"response_id": response_id}, principal=principal)
    lookup = kind(store, BackgroundRuns(store))
    return dict(json.loads(await lookup.answer(b"", head, _NoFleet())))


class _NoFleet:
    """Nothing here asks the fleet."""

    async def decoded(self, read: Callable[[bytes, Head], Any], body: bytes, head: Head) -> Any:
        return read(body, head)

    async def count_tokens(self, request: neuron.CountTokensRequest) -> neuron.CountTokensResponse:
        raise AssertionError(request)

    async def compare(self, request: generation.GenerateRequest) -> list[Any]:
        raise AssertionError(request)

    async def embed(self, request: neuron.EmbedRequest) -> neuron.EmbedResponse:
        raise AssertionError(request)

    def models(self) -> list[Any]:
        raise AssertionError

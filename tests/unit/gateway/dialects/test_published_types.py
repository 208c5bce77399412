"""Bodies and events are valid by the types that the SDKs' makers generate from their API documents.

The SDKs build their objects without validating; here the same classes validate.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import anthropic.types as anthropic_types
from hypothesis import HealthCheck, given, settings
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from cortex.v1 import model_pb2
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.lookup import ListedModel
from services.gateway.dialects.models import encode as models
from services.gateway.dialects.openai_embeddings import decode as embeddings
from services.gateway.dialects.openai_embeddings import encode as vectors
from services.gateway.dialects.openai_responses.store.store import ResponsesStore
from tests.unit.gateway.dialects import decoding, legal
from tests.unit.gateway.dialects.answers import (
    HEAD,
    SIZES,
    Answer,
    answers,
    collect,
    events_of,
    stream,
)

relaxed = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
MESSAGE_EVENT: TypeAdapter[Any] = TypeAdapter(anthropic_types.RawMessageStreamEvent)
RESPONSE_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}


@relaxed
@given(answers(), SIZES)
def test_chat(answer: Answer, sizes: list[int]) -> None:
    dialect, decoded = decoding.chat(stream_options={"include_usage": True})
    events = events_of(answer, sizes)

    for _, payload in legal.sse(stream(dialect, decoded, answer, events, beats={0}))[:-1]:
        ChatCompletionChunk.model_validate(payload)
    ChatCompletion.model_validate_json(dialect.body(decoded, HEAD, [collect(answer, events)]))


@relaxed
@given(answers(), SIZES)
def test_completions(answer: Answer, sizes: list[int]) -> None:
    dialect, decoded = decoding.completion()
    events = events_of(answer, sizes)

    Completion.model_validate_json(dialect.body(decoded, HEAD, [collect(answer, events)]))


@relaxed
@given(answers(), SIZES)
def test_messages(answer: Answer, sizes: list[int]) -> None:
    dialect, decoded = decoding.messages()
    events = events_of(answer, sizes)

    for name, payload in legal.sse(stream(dialect, decoded, answer, events, beats={0})):
        if name != "ping":  # the SDK's types leave it out
            MESSAGE_EVENT.validate_python(payload)
    anthropic_types.Message.model_validate_json(
        dialect.body(decoded, HEAD, [collect(answer, events)])
    )


@relaxed
@given(answers(), SIZES)
def test_responses(shared_store: ResponsesStore, answer: Answer, sizes: list[int]) -> None:
    dialect, decoded = decoding.responses(
        shared_store,
        tools=[TOOL, {"type": "web_search"}],
        text={"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}},
        reasoning={"effort": "low", "summary": "auto"} if len(sizes) % 2 else {},
    )
    events = events_of(answer, sizes)

    for _, payload in legal.sse(stream(dialect, decoded, answer, events, beats={0}, waits=1)):
        RESPONSE_EVENT.validate_python(payload)
    Response.model_validate_json(dialect.body(decoded, HEAD, [collect(answer, events)]))


def test_a_failed_response(store: ResponsesStore) -> None:
    dialect, decoded = decoding.responses(store)
    projector = dialect.projector(decoded, HEAD)

    told = projector.open() + projector.fail(FleetError(Reason.WORKER_LOST, "The worker died."))

    for _, payload in legal.sse(told):
        RESPONSE_EVENT.validate_python(payload)


def test_models() -> None:
    one = ListedModel(model="m", created_unix_seconds=1_700_000_000, max_context_tokens=8192)

    Model.model_validate(models.openai_object(one))
    anthropic_types.ModelInfo.model_validate(models.anthropic_object(one))
    loaded = dataclasses.replace(one, is_loaded=True, capabilities=(model_pb2.CAPABILITY_CHAT,))
    told = anthropic_types.ModelInfo.model_validate(models.anthropic_object(loaded))
    assert told.capabilities
    assert told.capabilities.structured_outputs.supported
    assert not told.capabilities.thinking.supported


def test_embeddings() -> None:
    decoded = embeddings.decode(b'{"model": "m", "input": "x"}', HEAD)
    answer = neuron.EmbedResponse(embeddings=[neuron.Embedding(values=[1, 2])], prompt_tokens=1)

    CreateEmbeddingResponse.model_validate_json(vectors.body(decoded, answer))

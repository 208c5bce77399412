"""Whatever a model may answer, cut in any way, is valid by OpenAI's document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from services.gateway.dialects.openai_responses.store.store import ResponsesStore
from tests.contract.openapi.api import Tally, checked
from tests.contract.openapi.document import Document
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
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
TOOL = {"type": "function", "name": "f", "parameters": {"type": "object"}}


@pytest.fixture(scope="module")
def store() -> Iterator[ResponsesStore]:
    one = ResponsesStore(None)
    yield one
    one.close()


@relaxed
@given(answers(), SIZES)
def test_chat(document: Document, tally: Tally, answer: Answer, sizes: list[int]) -> None:
    options = {"stream_options": {"include_usage": True}} if len(sizes) % 2 else {}
    dialect, ask = decoding.chat(logprobs=True, top_logprobs=2, **options)
    events = events_of(answer, sizes)

    for _, payload in legal.sse(stream(dialect, ask, answer, events, beats={0}))[:-1]:
        checked(document, tally, "/chat/completions", payload, streamed=True)
    whole = json.loads(dialect.body(ask, HEAD, [collect(answer, events)]))
    checked(document, tally, "/chat/completions", whole)


@relaxed
@given(answers(), SIZES)
def test_completions(document: Document, tally: Tally, answer: Answer, sizes: list[int]) -> None:
    options: dict[str, Any] = {"logprobs": 2} if len(sizes) % 2 else {}
    dialect, ask = decoding.completion(**options)
    events = events_of(answer, sizes)

    for _, payload in legal.sse(stream(dialect, ask, answer, events, beats={0}))[:-1]:
        checked(document, tally, "/completions", payload, streamed=True)
    whole = json.loads(dialect.body(ask, HEAD, [collect(answer, events)]))
    checked(document, tally, "/completions", whole)


@relaxed
@given(answers(), SIZES)
def test_responses(
    document: Document, tally: Tally, store: ResponsesStore, answer: Answer, sizes: list[int]
) -> None:
    summary = {"reasoning": {"effort": "low", "summary": "auto"}} if len(sizes) % 2 else {}
    dialect, ask = decoding.responses(store, tools=[TOOL], top_logprobs=2, **summary)
    events = events_of(answer, sizes)

    for _, payload in legal.sse(stream(dialect, ask, answer, events, beats={0}, waits=1)):
        checked(document, tally, "/responses", payload, streamed=True)
    whole = json.loads(dialect.body(ask, HEAD, [collect(answer, events)]))
    checked(document, tally, "/responses", whole)

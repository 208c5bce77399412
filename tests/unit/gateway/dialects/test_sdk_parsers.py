"""The official SDKs read what the projectors write: their own parsers, our bytes."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx2
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from pydantic import BaseModel

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason, context_too_long
from services.gateway.dialects.dialect import Dialect
from services.gateway.dialects.openai_responses.store.store import ResponsesStore
from tests.unit.gateway.dialects import decoding
from tests.unit.gateway.dialects.answers import (
    HEAD,
    SIZES,
    Answer,
    Segment,
    answers,
    collect,
    events_of,
    stream,
)

relaxed = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
ANSWER = Answer(
    (
        Segment("reasoning", "Let me see."),
        Segment("text", "It is "),
        Segment("tool_call", '{"city": "Paris"}', "get_weather"),
        Segment("tool_call", '{"city": "Rome"}', "get_weather"),
    ),
    generation.FINISH_REASON_TOOL_CALLS,
)
HELLO: list[Any] = [{"role": "user", "content": "hello"}]


def _transport(content: bytes, *, streamed: bool, status: int = 200) -> httpx2.MockTransport:
    kind = "text/event-stream; charset=utf-8" if streamed else "application/json"

    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(status, content=content, headers={"content-type": kind})

    return httpx2.MockTransport(answer)


def _openai(content: bytes, *, streamed: bool = True, status: int = 200) -> openai.OpenAI:
    client = httpx2.Client(transport=_transport(content, streamed=streamed, status=status))
    return openai.OpenAI(
        base_url="http://gateway/v1", api_key="dummy", http_client=client, max_retries=0
    )


def _anthropic(content: bytes, *, streamed: bool = True, status: int = 200) -> anthropic.Anthropic:
    client = httpx2.Client(transport=_transport(content, streamed=streamed, status=status))
    return anthropic.Anthropic(
        base_url="http://gateway", api_key="dummy", http_client=client, max_retries=0
    )


@relaxed
@given(answers(), SIZES)
def test_the_openai_sdk_reads_chat_streams(answer: Answer, sizes: list[int]) -> None:
    dialect, decoded = decoding.chat(stream_options={"include_usage": True})
    told = stream(dialect, decoded, answer, events_of(answer, sizes), beats={0, 2}, waits=1)

    with _openai(told) as client:
        chunks = list(client.chat.completions.create(model="m", messages=HELLO, stream=True))

    content = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert answer.joined("text") == content
    assert chunks[-1].usage is not None
    assert 29 == chunks[-1].usage.total_tokens


def test_the_openai_sdk_adds_a_chat_stream_up() -> None:
    dialect, decoded = decoding.chat()
    told = stream(dialect, decoded, ANSWER, events_of(ANSWER, [3] * 40), beats={1})

    with (
        _openai(told) as client,
        client.chat.completions.stream(model="m", messages=HELLO) as streamed,
    ):
        final = streamed.get_final_completion()

    message = final.choices[0].message
    assert "It is " == message.content
    assert message.tool_calls is not None
    assert ['{"city": "Paris"}', '{"city": "Rome"}'] == [
        call.function.arguments for call in message.tool_calls
    ]
    assert "tool_calls" == final.choices[0].finish_reason


def test_the_openai_sdk_reads_a_whole_chat() -> None:
    dialect, decoded = decoding.chat()
    told = dialect.body(decoded, HEAD, [collect(ANSWER, events_of(ANSWER))])

    with _openai(told, streamed=False) as client:
        found = client.chat.completions.create(model="m", messages=HELLO)

    assert found.choices[0].message.tool_calls is not None
    assert "get_weather" == found.choices[0].message.tool_calls[0].function.name  # type: ignore[union-attr]
    assert "Let me see." == found.choices[0].message.reasoning_content  # type: ignore[attr-defined]


@relaxed
@given(answers(), SIZES)
def test_the_openai_sdk_reads_response_streams(
    shared_store: ResponsesStore, answer: Answer, sizes: list[int]
) -> None:
    dialect, decoded = decoding.responses(shared_store)
    told = stream(dialect, decoded, answer, events_of(answer, sizes), beats={0, 2}, waits=1)

    with _openai(told) as client, client.responses.stream(model="m", input="hello") as streamed:
        kinds = [event.type for event in streamed]

    assert "response.created" == kinds[0]
    cut = answer.reason == generation.FINISH_REASON_MAX_TOKENS
    assert ("response.incomplete" if cut else "response.completed") == kinds[-1]


def test_the_openai_sdk_adds_a_response_stream_up(store: ResponsesStore) -> None:
    dialect, decoded = decoding.responses(store)
    told = stream(dialect, decoded, ANSWER, events_of(ANSWER, [4] * 40))

    with _openai(told) as client, client.responses.stream(model="m", input="hello") as streamed:
        final = streamed.get_final_response()

    assert "It is " == final.output_text
    assert ["reasoning", "message", "function_call", "function_call"] == [
        item.type for item in final.output
    ]
    assert final.usage is not None
    assert 8 == final.usage.input_tokens_details.cached_tokens


def test_the_openai_sdk_parses_structured_output(store: ResponsesStore) -> None:
    class City(BaseModel):
        name: str

    answer = Answer((Segment("text", '{"name": "Paris"}'),))
    dialect, decoded = decoding.responses(store)
    told = dialect.body(decoded, HEAD, [collect(answer, events_of(answer))])

    with _openai(told, streamed=False) as client:
        found = client.responses.parse(model="m", input="hello", text_format=City)

    assert City(name="Paris") == found.output_parsed


@relaxed
@given(answers(), SIZES)
def test_the_anthropic_sdk_reads_message_streams(answer: Answer, sizes: list[int]) -> None:
    dialect, decoded = decoding.messages()
    told = stream(dialect, decoded, answer, events_of(answer, sizes), beats={0, 2}, waits=1)

    with (
        _anthropic(told) as client,
        client.messages.stream(model="m", max_tokens=9, messages=HELLO) as streamed,
    ):
        final = streamed.get_final_message()

    kinds = {"text": "text", "reasoning": "thinking", "tool_call": "tool_use"}
    assert [kinds[kind] for kind, _ in answer.parts()] == [block.type for block in final.content]
    inputs = [block.input for block in final.content if block.type == "tool_use"]
    assert [found for _, _, found in answer.calls()] == inputs
    assert (12, 8, 9) == (
        final.usage.input_tokens,
        final.usage.cache_read_input_tokens,
        final.usage.output_tokens,
    )


def test_the_anthropic_sdk_reads_a_whole_message() -> None:
    dialect, decoded = decoding.messages()
    told = dialect.body(decoded, HEAD, [collect(ANSWER, events_of(ANSWER))])

    with _anthropic(told, streamed=False) as client:
        found = client.messages.create(model="m", max_tokens=9, messages=HELLO)

    assert ["thinking", "text", "tool_use", "tool_use"] == [one.type for one in found.content]
    assert "tool_use" == found.stop_reason


def test_the_openai_sdk_raises_on_a_lost_worker() -> None:
    dialect, decoded = decoding.chat()
    projector = dialect.projector(decoded, HEAD)
    told = projector.open() + projector.text(0, "he", 1)
    told += projector.fail(FleetError(Reason.WORKER_LOST, "The worker died."))

    with _openai(told) as client, pytest.raises(openai.APIError, match="The worker died"):
        list(client.chat.completions.create(model="m", messages=HELLO, stream=True))


def test_the_anthropic_sdk_raises_on_a_lost_worker() -> None:
    dialect, decoded = decoding.messages()
    projector = dialect.projector(decoded, HEAD)
    told = projector.open() + projector.text(0, "he", 1)
    told += projector.fail(FleetError(Reason.WORKER_LOST, "The worker died."))

    with (
        _anthropic(told) as client,
        pytest.raises(anthropic.APIStatusError, match="The worker died"),
        client.messages.stream(model="m", max_tokens=9, messages=HELLO) as streamed,
    ):
        streamed.get_final_message()


def test_too_long_a_prompt_has_the_code_that_agents_compact_on(store: ResponsesStore) -> None:
    error = context_too_long(prompt_tokens=9000, max_tokens=8192)
    dialects: list[Dialect] = [decoding.chat()[0], decoding.responses(store)[0]]

    for dialect in dialects:
        told = dialect.error(error, HEAD)
        with (
            _openai(told, streamed=False, status=400) as client,
            pytest.raises(openai.BadRequestError) as raised,
        ):
            client.chat.completions.create(model="m", messages=HELLO)

        assert "context_length_exceeded" == raised.value.code
        assert (
            "This model's maximum context length is 8192 tokens. "
            "However, your messages resulted in 9000 tokens."
        ) in raised.value.message


def test_too_long_a_prompt_has_the_words_that_claude_code_parses() -> None:
    told = decoding.messages()[0].error(context_too_long(prompt_tokens=9000, max_tokens=8192), HEAD)

    assert {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": "prompt is too long: 9000 tokens > 8192 maximum",
        },
        "request_id": "req_1",
    } == json.loads(told)

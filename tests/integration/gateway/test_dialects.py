"""Every dialect through a real server: the SDKs of their makers, and plain HTTP where there is none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import context_too_long
from services.gateway.settings import ApiKey, AuthSettings
from tests.doubles.scripted_neuron import Script, reasoning, text, tool_call
from tests.integration.gateway.fleet import Fleet

HELLO: Any = [{"role": "user", "content": "Hi"}]
CALLS = Script(
    [
        reasoning("hm"),
        text("So:"),
        tool_call(0, '{"city"', call_id="call_1", name="weather"),
        tool_call(0, ': "Rome"}'),
    ],
    reason=generation.FINISH_REASON_TOOL_CALLS,
)


@pytest.fixture
async def gpt(fleet: Fleet) -> AsyncIterator[openai.AsyncOpenAI]:
    """OpenAI's SDK."""
    url = f"http://{fleet.gateway.address}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="dummy", max_retries=0) as client:
        yield client


@pytest.fixture
async def claude(fleet: Fleet) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """Anthropic's SDK."""
    url = f"http://{fleet.gateway.address}"
    async with anthropic.AsyncAnthropic(base_url=url, api_key="dummy", max_retries=0) as client:
        yield client


async def test_a_message_is_streamed(fleet: Fleet, claude: anthropic.AsyncAnthropic) -> None:
    await fleet.add_neuron("n1", CALLS)

    async with claude.messages.stream(model="tiny", max_tokens=9, messages=HELLO) as stream:
        final = await stream.get_final_message()

    assert ["thinking", "text", "tool_use"] == [one.type for one in final.content]
    assert "tool_use" == final.stop_reason


async def test_a_message_is_counted(fleet: Fleet, claude: anthropic.AsyncAnthropic) -> None:
    neuron = await fleet.add_neuron()

    found = await claude.messages.count_tokens(model="tiny", messages=HELLO, system="be brief")

    assert found.input_tokens > 0
    assert 2 == len(neuron.counted[0].chat.messages)


async def test_a_response_goes_on_from_another(fleet: Fleet, gpt: openai.AsyncOpenAI) -> None:
    neuron = await fleet.add_neuron("n1", CALLS, Script())

    async with gpt.responses.stream(model="tiny", input="Hi") as stream:
        first = await stream.get_final_response()
    second = await gpt.responses.create(
        model="tiny",
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": "call_1", "output": "sunny"}],
    )

    assert "Hello world" == second.output_text
    roles = [one.role for one in neuron.requests[1].chat.messages]
    assert [2, 3, 4] == roles, "user, assistant, tool"
    again = await gpt.responses.retrieve(first.id)
    assert [one.type for one in first.output] == [one.type for one in again.output]
    items = await gpt.responses.input_items.list(second.id)
    assert ["function_call_output"] == [one.type for one in items.data]
    await gpt.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        await gpt.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError, match="Cannot cancel"):
        await gpt.responses.cancel(second.id)


async def _looked_up(gpt: openai.AsyncOpenAI, response_id: str) -> Any:
    """The response once it runs no more; SDKs poll likewise."""
    async with asyncio.timeout(60):
        while True:
            found = await gpt.responses.retrieve(response_id)
            if found.status not in {"queued", "in_progress"}:
                return found
            await asyncio.sleep(0.01)


async def test_a_response_runs_in_the_background(fleet: Fleet, gpt: openai.AsyncOpenAI) -> None:
    gate = asyncio.Event()
    await fleet.add_neuron("n1", Script([text("a"), text("b")], gate=gate))

    made = await gpt.responses.create(model="tiny", input="Hi", background=True)
    meanwhile = await gpt.responses.retrieve(made.id)
    gate.set()
    found = await _looked_up(gpt, made.id)

    assert ("queued", "in_progress") == (made.status, meanwhile.status)
    assert ("completed", "ab", True) == (found.status, found.output_text, found.background)


async def test_a_response_in_the_background_is_cancelled(
    fleet: Fleet, gpt: openai.AsyncOpenAI
) -> None:
    neuron = await fleet.add_neuron("n1", Script([text("a"), text("b")], gate=asyncio.Event()))
    made = await gpt.responses.create(model="tiny", input="Hi", background=True)
    await neuron.until(lambda: neuron.active == 1)

    cancelled = await gpt.responses.cancel(made.id)

    await neuron.until(lambda: neuron.active == 0)
    assert "cancelled" == cancelled.status == (await _looked_up(gpt, made.id)).status
    assert "cancelled" == (await gpt.responses.cancel(made.id)).status


async def test_a_response_in_the_background_may_fail(fleet: Fleet, gpt: openai.AsyncOpenAI) -> None:
    await fleet.add_neuron("n1", Script(refuse=context_too_long(prompt_tokens=9, max_tokens=8)))

    made = await gpt.responses.create(model="tiny", input="Hi", background=True)
    found = await _looked_up(gpt, made.id)

    assert ("failed", "context_length_exceeded") == (found.status, found.error.code)


async def test_a_response_that_fails_in_mid_stream_says_so(fleet: Fleet) -> None:
    await fleet.add_neuron("n1", Script([text("a"), text("b")], fail_after=1))
    body = {"model": "tiny", "input": "Hi", "stream": True}

    answer = await fleet.client.post("/v1/responses", json=body)

    assert '"type":"response.failed"' in answer.text
    assert "The engine stumbled." in answer.text
    assert "response.completed" not in answer.text


async def test_a_stored_response_belongs_to_its_key(bare: Fleet) -> None:
    keys = (ApiKey(name="ann", key="a" * 20), ApiKey(name="bob", key="b" * 20))
    await bare.start(AuthSettings(keys=keys))
    await bare.add_neuron()
    ann, bob = ({"authorization": f"Bearer {letter * 20}"} for letter in "ab")

    made = await bare.client.post(
        "/v1/responses", json={"model": "tiny", "input": "Hi"}, headers=ann
    )

    path = f"/v1/responses/{made.json()['id']}"
    assert 200 == (await bare.client.get(path, headers=ann)).status_code
    assert 404 == (await bare.client.get(path, headers=bob)).status_code


async def test_a_completion_of_several_prompts(fleet: Fleet, gpt: openai.AsyncOpenAI) -> None:
    await fleet.add_neuron()

    found = await gpt.completions.create(model="tiny", prompt=["a", "b"], n=2)

    assert ["Hello world"] * 4 == [one.text for one in found.choices]


async def test_texts_are_embedded(fleet: Fleet, gpt: openai.AsyncOpenAI) -> None:
    """The SDK asks for base64 by itself."""
    await fleet.add_neuron()

    found = await gpt.embeddings.create(model="tiny", input=["a", "b"])

    assert [[0.5, 0.25], [0.5, 0.25]] == [one.embedding for one in found.data]
    assert 3 == found.usage.total_tokens


async def test_both_sdks_list_models(
    fleet: Fleet, gpt: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic
) -> None:
    await fleet.add_neuron()

    openai_ids = [one.id async for one in gpt.models.list()]
    anthropic_ids = [one.id async for one in claude.models.list(limit=1)]

    assert ["tiny", "tiny-alias"] == openai_ids == anthropic_ids
    assert "tiny" == (await gpt.models.retrieve("tiny")).id
    assert "tiny-alias" == (await claude.models.retrieve("tiny-alias")).id
    with pytest.raises(openai.NotFoundError) as raised:
        await gpt.models.retrieve("nope")
    assert "model_not_found" == raised.value.code


async def test_ollama_chats_in_lines(fleet: Fleet) -> None:
    await fleet.add_neuron("n1", CALLS)

    answer = await fleet.client.post(
        "/api/chat", json={"model": "tiny:latest", "messages": HELLO, "keep_alive": "5m"}
    )

    assert "application/x-ndjson" == answer.headers["content-type"]
    found = [json.loads(line) for line in answer.text.splitlines()]
    assert "So:" == "".join(line["message"]["content"] for line in found)
    (calls,) = [c for line in found if (c := line["message"].get("tool_calls"))]
    assert [{"function": {"name": "weather", "arguments": {"city": "Rome"}}}] == calls
    assert found[-1]["done"]


async def test_ollama_says_in_its_own_words_that_a_model_is_unknown(fleet: Fleet) -> None:
    await fleet.add_neuron()

    for path in ("/api/chat", "/api/show", "/api/pull"):
        body = {"model": "nope", "messages": HELLO}
        answer = await fleet.client.post(path, json=body)
        assert 404 == answer.status_code, path
        assert "not found" in answer.json()["error"], path
    assert 404 == (await fleet.client.get("/api/nothing")).status_code
    assert 200 == (await fleet.client.head("/")).status_code
    assert {"error"} == set((await fleet.client.get("/api/nothing")).json())


async def test_too_long_a_prompt_is_refused_in_each_dialects_words(
    fleet: Fleet, gpt: openai.AsyncOpenAI, claude: anthropic.AsyncAnthropic
) -> None:
    error = context_too_long(prompt_tokens=9000, max_tokens=8192)
    await fleet.add_neuron("n1", Script(refuse=error))

    with pytest.raises(openai.BadRequestError, match="maximum context length is 8192") as raised:
        await gpt.responses.create(model="tiny", input="Hi", stream=True)
    assert "context_length_exceeded" == raised.value.code
    with pytest.raises(anthropic.BadRequestError, match="9000 tokens > 8192 maximum"):
        async with claude.messages.stream(model="tiny", max_tokens=9, messages=HELLO) as stream:
            await stream.get_final_message()


async def test_load_generators_find_it_healthy(fleet: Fleet) -> None:
    """guidellm asks for /health before it begins."""
    assert 200 == (await fleet.client.get("/health")).status_code

"""Limits of keys over HTTP: what is let through, what is counted, and how clients are told."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import anyio
import httpx
import openai
import pytest

from services.backplane.errors import FleetError, Reason
from services.gateway.limits.allowance import Allowance, Meter
from services.gateway.limits.settings import KeyLimits
from services.gateway.settings import ApiKey, AuthSettings
from tests.doubles.scripted_neuron import Script, ScriptedNeuron, text
from tests.integration.gateway.fleet import SECONDS, Fleet, chat_body
from tests.integration.gateway.responses_socket import connected

ADA = {"authorization": "Bearer sk-ada"}
MESSAGES = [{"role": "user", "content": "Hi"}]
# What a scripted neuron counts of a whole answer: its prompt, and two words.
WHOLE = 7 + 2
DIALECTS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": MESSAGES}),
    "completions": ("/v1/completions", {"prompt": "Hi"}),
    "responses": ("/v1/responses", {"input": "Hi"}),
    "messages": ("/v1/messages", {"messages": MESSAGES, "max_tokens": 5}),
    "ollama": ("/api/chat", {"messages": MESSAGES}),
    "embeddings": ("/v1/embeddings", {"input": "Hi"}),
    "count": ("/v1/messages/count_tokens", {"messages": MESSAGES}),
}


async def start(fleet: Fleet, *scripts: Script, **limits: Any) -> ScriptedNeuron:
    key = ApiKey(name="ada", key="sk-ada", limits=KeyLimits(**limits))
    await fleet.start(AuthSettings(keys=(key,)))
    return await fleet.add_neuron("n1", *scripts)


def allowance(fleet: Fleet, meter: Meter = Meter.TOKENS) -> Allowance:
    account = fleet.gateway.services.limiter.account("ada")
    assert account is not None
    return next(one for one in account.allowances if one.meter is meter)


async def ask(fleet: Fleet, dialect: str, **more: Any) -> httpx.Response:
    path, body = DIALECTS[dialect]
    return await fleet.client.post(path, json={"model": "tiny", **body, **more}, headers=ADA)


async def settled(fleet: Fleet) -> int:
    """The tokens that are used once nothing is reserved any more."""
    async with asyncio.timeout(SECONDS):
        while allowance(fleet).reserved:
            await asyncio.sleep(0.01)
    return allowance(fleet).used


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_every_dialect_is_refused_in_its_own_words(bare: Fleet, dialect: str) -> None:
    neuron = await start(bare, requests_per_minute=1)
    answers = 0
    while (refused := await ask(bare, dialect)).status_code == 200:
        answers += 1  # another minute may begin in between

    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    error = refused.json()["error"]
    if dialect == "ollama":
        assert "Rate limit reached (requests_per_minute)" in error
    else:
        assert "Rate limit reached (requests_per_minute)" in error["message"]
        assert error["type"] == "rate_limit_error"
    assert answers in {1, 2}
    assert len(neuron.requests) + len(neuron.counted) + len(neuron.embedded) == answers


@pytest.mark.parametrize("dialect", ["chat", "messages"])
async def test_a_budget_that_is_spent_is_no_matter_of_waiting(bare: Fleet, dialect: str) -> None:
    await start(bare, tokens_per_month=200)
    while (answer := await ask(bare, dialect, max_tokens=5)).status_code == 200:
        pass

    assert answer.status_code == 429
    assert answer.headers["x-should-retry"] == "false"
    error = answer.json()["error"]
    assert "tokens_per_month" in error["message"]
    if dialect == "chat":
        assert error["type"] == error["code"] == "insufficient_quota"


async def test_openai_is_told_how_its_limits_stand(bare: Fleet) -> None:
    await start(bare, requests_per_minute=10, tokens_per_minute=1000)

    answer = await ask(bare, "chat", max_tokens=5)

    told = answer.headers
    assert (told["x-ratelimit-limit-requests"], told["x-ratelimit-limit-tokens"]) == ("10", "1000")
    assert told["x-ratelimit-remaining-requests"] == "9"
    assert 900 < int(told["x-ratelimit-remaining-tokens"]) < 1000
    assert told["x-ratelimit-reset-requests"].endswith("s")
    assert "anthropic-ratelimit-requests-limit" not in told


async def test_anthropic_is_told_how_its_limits_stand(bare: Fleet) -> None:
    await start(bare, requests_per_minute=1, tokens_per_minute=1000)

    for answer in (await ask(bare, "messages"), await ask(bare, "messages")):
        told = answer.headers
        assert told["anthropic-ratelimit-requests-limit"] == "1"
        assert told["anthropic-ratelimit-requests-remaining"] == "0"
        assert told["anthropic-ratelimit-tokens-limit"] == "1000"
        assert told["anthropic-ratelimit-tokens-reset"].endswith("00Z")
        assert "x-ratelimit-limit-requests" not in told


async def test_a_stream_is_told_in_its_head(bare: Fleet) -> None:
    await start(bare, requests_per_minute=10)

    answer = await ask(bare, "chat", stream=True)

    assert answer.headers["x-ratelimit-remaining-requests"] == "9"


async def test_who_has_no_limits_is_told_of_none(fleet: Fleet) -> None:
    await fleet.add_neuron()

    assert not [name for name in (await fleet.chat()).headers if "ratelimit" in name]


@pytest.mark.parametrize("dialect", ["chat", "completions", "responses", "messages", "ollama"])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_was_used_is_counted(bare: Fleet, dialect: str, stream: bool) -> None:
    await start(bare, tokens_per_day=10_000)

    assert (await ask(bare, dialect, stream=stream)).status_code == 200

    assert await settled(bare) == WHOLE


async def test_texts_to_embed_are_counted(bare: Fleet) -> None:
    await start(bare, tokens_per_day=10_000)

    answer = await ask(bare, "embeddings", input=["a", "b"])

    assert await settled(bare) == answer.json()["usage"]["prompt_tokens"] > 0


async def test_each_of_n_answers_and_each_prompt_of_a_list_counts_whole(bare: Fleet) -> None:
    await start(bare, tokens_per_day=10_000)

    await ask(bare, "chat", n=3)
    await ask(bare, "completions", prompt=["Hi", "Ho"], n=2)

    assert await settled(bare) == 7 * WHOLE


async def test_n_that_does_not_fit_runs_none_of_them(bare: Fleet) -> None:
    neuron = await start(bare, concurrent_streams=2)

    refused = await ask(bare, "chat", n=3)

    assert refused.status_code == 429
    assert refused.headers["x-should-retry"] == "false"
    assert neuron.requests == []


async def test_a_client_that_leaves_has_used_what_was_made(bare: Fleet) -> None:
    gate = asyncio.Event()
    await start(bare, Script([text("one"), text("two")], gate=gate), tokens_per_day=10_000)
    body = chat_body(stream=True)
    async with bare.client.stream(
        "POST", "/v1/chat/completions", json=body, headers=ADA
    ) as response:
        async for line in response.aiter_lines():
            if '"one"' in line:
                break

    assert await settled(bare) == 7 + 1


async def test_an_answer_that_fails_has_used_what_was_made(bare: Fleet) -> None:
    await start(bare, Script([text("one"), text("two")], fail_after=1), tokens_per_day=10_000)

    assert "stumbled" in (await ask(bare, "chat", stream=True)).text

    assert await settled(bare) == 7 + 1


async def test_what_never_began_has_used_nothing(bare: Fleet) -> None:
    refusal = FleetError(Reason.CONTEXT_TOO_LONG, "It is too long.")
    await start(bare, Script(refuse=refusal), tokens_per_day=10_000)

    assert (await ask(bare, "chat")).status_code == 400

    assert await settled(bare) == 0


async def test_a_response_in_the_background_is_counted_at_its_end(bare: Fleet) -> None:
    await start(bare, tokens_per_day=10_000, concurrent_streams=1)

    answer = await ask(bare, "responses", background=True)

    assert answer.json()["status"] == "queued"
    assert await settled(bare) == WHOLE
    assert allowance(bare, Meter.STREAMS).reserved == 0


async def test_turns_over_a_websocket_are_counted_and_refused(bare: Fleet) -> None:
    await start(bare, requests_per_minute=1, tokens_per_day=10_000)
    async with connected(bare.gateway.address) as socket:
        await socket.open(bare.gateway.address, (b"authorization", b"Bearer sk-ada"))
        turns = [(await socket.turn(input="Hi"))[-1] for _ in range(3)]  # in two minutes at most

    whole = [turn for turn in turns if turn["type"] == "response.completed"]
    refused = [turn for turn in turns if turn not in whole]
    assert whole
    assert {turn["error"]["code"] for turn in refused} == {"rate_limit_exceeded"}
    assert await settled(bare) == WHOLE * len(whole)


async def test_the_longest_context_and_output_go_to_the_neuron(bare: Fleet) -> None:
    neuron = await start(bare, max_context_tokens=500, max_output_tokens=20)

    await ask(bare, "chat", max_tokens=7)
    await ask(bare, "chat", max_tokens=700)
    await ask(bare, "chat")

    assert [one.stop.max_tokens for one in neuron.requests] == [7, 20, 20]
    assert [one.max_context_tokens for one in neuron.requests] == [500, 500, 500]


@pytest.mark.parametrize("sdk", ["openai", "anthropic"])
async def test_the_sdks_come_again_when_they_are_told_to(
    bare: Fleet, sdk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = asyncio.Event()
    held = Script([text("one"), text("two")], gate=gate)
    neuron = await start(bare, held, Script(), concurrent_streams=1)
    waits: list[float] = []

    async def wait(seconds: float) -> None:
        """The SDK waits before it tries again; meanwhile the first answer ends."""
        waits.append(seconds)
        gate.set()
        await first

    first = asyncio.create_task(ask(bare, "chat"))
    await neuron.until(lambda: neuron.requests)
    monkeypatch.setattr(anyio, "sleep", wait)
    base = f"http://{bare.gateway.address}"
    if sdk == "openai":
        async with openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="sk-ada") as client:
            question: Any = MESSAGES
            answer = await client.chat.completions.create(model="tiny", messages=question)
            assert answer.choices[0].message.content == "Hello world"
    else:
        async with anthropic.AsyncAnthropic(base_url=base, api_key="sk-ada") as asking:
            asked: Any = MESSAGES
            message = await asking.messages.create(model="tiny", messages=asked, max_tokens=9)
            assert [getattr(part, "text", "") for part in message.content] == ["Hello world"]

    assert waits == [1.0]  # by themselves they wait for half a second


async def test_keys_that_are_read_again_bring_their_limits(bare: Fleet) -> None:
    await start(bare, concurrent_streams=0)
    assert (await ask(bare, "chat")).status_code == 429

    key = ApiKey(name="ada", key="sk-ada", limits=KeyLimits(concurrent_streams=1))
    bare.gateway.services.auth.use(AuthSettings(keys=(key,)))

    assert (await ask(bare, "chat")).status_code == 200


async def test_what_was_served_is_reported_by_principal_and_model(bare: Fleet) -> None:
    await start(bare)
    await ask(bare, "chat", model="tiny-alias", n=2)
    await ask(bare, "embeddings")
    await ask(bare, "chat", model="nobody")
    reported = bare.registry.lessor.reported

    async with asyncio.timeout(SECONDS):
        while sum(row.requests for rows in reported.values() for row in rows) < 3:
            await asyncio.sleep(0.05)

    total: dict[tuple[str, str], list[int]] = {}
    for row in [row for rows in reported.values() for row in rows]:
        counts = total.setdefault((row.principal, row.model), [0, 0, 0, 0])
        for index, name in enumerate(("requests", "prompt_tokens", "cached_tokens")):
            counts[index] += getattr(row, name)
        counts[3] += row.completion_tokens
    assert total.pop(("ada", "unknown")) == [1, 0, 0, 0]
    ((key, counts),) = total.items()
    assert key == ("ada", "tiny")
    assert counts[0] == 2
    assert counts[1] > 2 * 7
    assert counts[2:] == [2 * 3, 2 * 2]

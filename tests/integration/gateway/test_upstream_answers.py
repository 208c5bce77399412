"""Answers that go on for too long, come as one piece or in other forms, and what they are charged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.gateway.settings import ApiKey, AuthSettings
from services.gateway.transports.upstream.settings import UpstreamSettings
from tests.doubles.scripted_upstream import DONE, WHOLE, Answer, ScriptedUpstream, chunk, usage
from tests.integration.gateway.fleet import Fleet, contents

NO_STREAM = Answer(
    status=400,
    body=json.dumps(
        {
            "error": {
                "message": "Unsupported value: 'stream' does not support true with this model.",
                "type": "invalid_request_error",
                "param": "stream",
                "code": "unsupported_value",
            }
        }
    ).encode(),
)


@pytest.fixture
async def far() -> AsyncIterator[ScriptedUpstream]:
    async with ScriptedUpstream() as one:
        yield one


async def started(bare: Fleet, far: ScriptedUpstream, **more: Any) -> Fleet:
    entry = UpstreamSettings(name="far", url=far.url, models=("big",), **more)
    key = ApiKey(name="ann", key="sk-ann")
    await bare.start(AuthSettings(keys=(key,)), upstreams=(entry,))
    bare.client.headers["authorization"] = "Bearer sk-ann"
    return bare


def piece(content: str = "Far away", *, tokens: int = 2, finish: str = "stop") -> Answer:
    """An answer that is no stream."""
    message = {"role": "assistant", "content": content, "reasoning_content": "Hm"}
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    if finish == "tool_calls":
        message["tool_calls"] = [call, {**call, "id": "c2"}]  # type: ignore[assignment]
    counts = {"prompt_tokens": 7, "completion_tokens": tokens}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return Answer(body=json.dumps({"choices": [choice], "usage": counts}).encode())


def last_of(stream: str) -> dict[str, Any]:
    return json.loads([x for x in stream.splitlines() if x.startswith("data: {")][-1][6:])


def finish_of(stream: str) -> list[str]:
    found = [json.loads(x[6:]) for x in stream.splitlines() if x.startswith("data: {")]
    choices = [choice for one in found for choice in one.get("choices", ())]
    return [one["finish_reason"] for one in choices if one["finish_reason"]]


async def usage_of(fleet: Fleet) -> Any:
    """The row that the registry was told."""
    async with asyncio.timeout(20):
        while not (rows := [r for one in fleet.registry.lessor.reported.values() for r in one]):
            await asyncio.sleep(0.05)
    (row,) = rows
    return row


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_does_not_end_is_ended(
    bare: Fleet, far: ScriptedUpstream, stream: bool
) -> None:
    fleet = await started(bare, far, answer_seconds=2)
    far.answers = [Answer(pieces=WHOLE[:2], drip=chunk("."))]

    async with asyncio.timeout(20):
        answer = await fleet.chat(model="big", stream=stream)

    error = last_of(answer.text)["error"] if stream else answer.json()["error"]
    assert "timeout" == error["code"]
    assert "'far' did not end its answer within 2 seconds" in error["message"]
    assert stream or 504 == answer.status_code
    assert "[DONE]" not in answer.text
    await far.until(lambda: far.left == 1)


@pytest.mark.parametrize("stream", [True, False])
async def test_an_upstream_that_passes_max_tokens_over_is_cut(
    bare: Fleet, far: ScriptedUpstream, stream: bool
) -> None:
    fleet = await started(bare, far)
    far.answers = [Answer(pieces=[chunk(f" no{i}") for i in range(9)], drip=chunk(" more"))]

    async with asyncio.timeout(20):
        answer = await fleet.chat(model="big", max_tokens=5, stream=stream)
    row = await usage_of(fleet)

    if stream:
        assert " no0 no1 no2 no3 no4" == "".join(contents(answer.text))
        assert ["length"] == finish_of(answer.text)
        assert answer.text.rstrip().endswith("[DONE]")
    else:
        (choice,) = answer.json()["choices"]
        assert " no0 no1 no2 no3 no4" == choice["message"]["content"]
        assert "length" == choice["finish_reason"]
        assert 5 == answer.json()["usage"]["completion_tokens"]
    assert 5 == row.completion_tokens
    assert 5 == far.asked[0].body["max_tokens"]
    await far.until(lambda: far.left == 1)


async def test_a_call_that_is_cut_is_told_as_cut(bare: Fleet, far: ScriptedUpstream) -> None:
    fleet = await started(bare, far)
    call = {"index": 0, "id": "c1", "function": {"name": "look", "arguments": '{"where": '}}
    more = {"index": 0, "function": {"arguments": '"up here, '}}
    pieces = [chunk(tool_calls=[call]), *[chunk(tool_calls=[more])] * 9]
    far.answers = [Answer(pieces=[*pieces, chunk(finish="tool_calls"), DONE])]
    tool: Any = {"type": "function", "function": {"name": "look", "parameters": {}}}

    answer = (await fleet.chat(model="big", max_tokens=3, tools=[tool])).json()

    (choice,) = answer["choices"]
    assert "length" == choice["finish_reason"]
    (told,) = choice["message"]["tool_calls"]
    assert '{"where": "up here, "up here, ' == told["function"]["arguments"]


async def test_an_answer_as_long_as_it_may_be_keeps_its_end_and_counts(
    bare: Fleet, far: ScriptedUpstream
) -> None:
    fleet = await started(bare, far)
    far.answers = [Answer(pieces=(*WHOLE, usage(7, 2), DONE))]

    answer = (await fleet.chat(model="big", max_tokens=2)).json()

    assert "stop" == answer["choices"][0]["finish_reason"]
    assert (7, 2) == tuple(answer["usage"][f"{x}_tokens"] for x in ("prompt", "completion"))


@pytest.mark.parametrize("pieces", [(), WHOLE[:1]])
@pytest.mark.parametrize("cut", [True, False])
async def test_a_prompt_whose_answer_failed_before_its_first_token_is_used(
    bare: Fleet, far: ScriptedUpstream, pieces: tuple[bytes, ...], cut: bool
) -> None:
    fleet = await started(bare, far)
    far.answers = [Answer(pieces=pieces, cut=cut)]

    refused = await fleet.chat(model="big")
    row = await usage_of(fleet)

    assert 502 == refused.status_code
    assert (1, 0) == (row.requests, row.completion_tokens)
    assert 30 < row.prompt_tokens < 100


@pytest.mark.parametrize(
    "answer",
    [
        Answer(status=500, body=b"no"),
        Answer(status=429, body=b"{}"),
        Answer(body=b'{"error": {"message": "Slow.", "code": 429}}'),
        Answer(pieces=(b'data: {"error": {"message": "Slow.", "code": "429"}}\n\n',)),
    ],
)
async def test_a_prompt_that_it_has_not_taken_up_is_not_used(
    bare: Fleet, far: ScriptedUpstream, answer: Answer
) -> None:
    fleet = await started(bare, far)
    far.answers = [answer]

    assert (await fleet.chat(model="big")).status_code in {429, 502}

    row = await usage_of(fleet)
    assert (1, 0) == (row.requests, row.prompt_tokens)


async def test_events_with_one_newline_between_them_are_an_answer(
    bare: Fleet, far: ScriptedUpstream
) -> None:
    fleet = await started(bare, far)
    lines = [one.strip() + b"\n" for one in (*WHOLE, usage(7, 2))]
    far.answers = [Answer(pieces=[b"".join([lines[0], *(b" " + o for o in lines[1:])]), b"[DONE]"])]

    stream = await fleet.stream_text(model="big")

    assert "Far away" == "".join(contents(stream))
    assert ["stop"] == finish_of(stream)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_model_that_is_not_streamed_is_asked_once_more_and_told_as_one_piece(
    bare: Fleet, far: ScriptedUpstream, stream: bool
) -> None:
    fleet = await started(bare, far)
    far.answers = [NO_STREAM, piece()]

    for _ in range(2):
        answer = await fleet.chat(model="big", stream=stream)
        if stream:
            assert "Far away" == "".join(contents(answer.text))
            assert ["stop"] == finish_of(answer.text)
        else:
            message = answer.json()["choices"][0]["message"]
            assert ("Far away", "Hm") == (message["content"], message["reasoning_content"])
            assert 2 == answer.json()["usage"]["completion_tokens"]

    assert [True, False, False] == [one.body["stream"] for one in far.asked]
    assert "stream_options" not in far.asked[1].body
    assert far.asked[0].body["messages"] == far.asked[1].body["messages"]


async def test_it_is_asked_no_third_time(bare: Fleet, far: ScriptedUpstream) -> None:
    fleet = await started(bare, far)
    far.answers = [NO_STREAM]

    refused = await fleet.chat(model="big")

    assert (400, "stream") == (refused.status_code, refused.json()["error"]["param"])
    assert [True, False] == [one.body["stream"] for one in far.asked]
    await fleet.chat(model="big")
    assert 4 == len(far.asked)  # it has not answered: a stream is asked for again


async def test_a_whole_answer_in_place_of_a_stream_is_told_with_its_calls(
    bare: Fleet, far: ScriptedUpstream
) -> None:
    fleet = await started(bare, far)
    far.answers = [piece(finish="tool_calls")]
    tool: Any = {"type": "function", "function": {"name": "look", "parameters": {}}}

    (choice,) = (await fleet.chat(model="big", tools=[tool])).json()["choices"]

    assert "tool_calls" == choice["finish_reason"]
    assert ["c1", "c2"] == [one["id"] for one in choice["message"]["tool_calls"]]
    assert 1 == len(far.asked)


async def test_a_whole_answer_is_cut_to_its_most_tokens(bare: Fleet, far: ScriptedUpstream) -> None:
    fleet = await started(bare, far)
    far.answers = [piece("word " * 400, tokens=400)]

    answer = (await fleet.chat(model="big", max_tokens=10)).json()

    (choice,) = answer["choices"]
    assert "length" == choice["finish_reason"]
    assert 30 < len(choice["message"]["content"]) <= 50
    assert 10 == answer["usage"]["completion_tokens"]


async def test_a_whole_answer_that_is_too_large_is_refused(
    bare: Fleet, far: ScriptedUpstream
) -> None:
    fleet = await started(bare, far)
    far.answers = [NO_STREAM, piece("x" * (9 << 20))]

    refused = await fleet.chat(model="big")

    assert 502 == refused.status_code
    assert "more than 8 MiB" in refused.json()["error"]["message"]


async def test_a_whole_answer_that_does_not_come_is_ended(
    bare: Fleet, far: ScriptedUpstream
) -> None:
    fleet = await started(bare, far, connect_seconds=1, first_byte_seconds=0.5, answer_seconds=3)
    far.answers = [NO_STREAM, Answer(head_gate=asyncio.Event())]

    async with asyncio.timeout(20):
        refused = await fleet.chat(model="big")

    assert 504 == refused.status_code
    row = await usage_of(fleet)
    assert 30 < row.prompt_tokens < 100  # it may have been read


async def test_an_upstream_that_cannot_be_reached_rests_and_is_tried_again(
    bare: Fleet, far: ScriptedUpstream
) -> None:
    fleet = await started(bare, far, rest_seconds=3600)
    far.answers = [Answer(status=503, body=b"no")]

    def is_up() -> float:
        return fleet.metric("cortex_gateway_upstream_up", upstream="far")

    assert 1 == is_up()
    refused = [await fleet.chat(model="big") for _ in range(8)]

    assert [502] * 8 == [one.status_code for one in refused]
    assert "rests" in refused[-1].json()["error"]["message"]
    assert "retry-after" in refused[-1].headers
    assert 5 == len(far.asked)
    assert 0 == is_up()
    (breaker,) = fleet.gateway._upstreams._breakers.values()
    breaker._rests_until = 0.0  # its time is over
    far.answers = [Answer()]
    assert 200 == (await fleet.chat(model="big")).status_code
    assert 1 == is_up()
    labels = {"upstream": "far"}
    assert 1 == fleet.metric("cortex_gateway_upstream_time_to_first_token_seconds_count", **labels)
    assert 9 == fleet.metric("cortex_gateway_upstream_request_seconds_count", **labels)


async def test_whether_one_is_up_is_not_told_once_it_is_not_asked(
    bare: Fleet, far: ScriptedUpstream
) -> None:
    fleet = await started(bare, far)

    fleet.gateway._upstreams.use(())

    assert fleet.sample("cortex_gateway_upstream_up", upstream="far") is None

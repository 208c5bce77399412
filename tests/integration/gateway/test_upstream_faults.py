"""Upstreams that misbehave: slow, cut, full, wrong; what clients then see. Nothing is tried twice
once a token was told, and every wait has an end.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.gateway.limits.settings import KeyLimits
from services.gateway.settings import ApiKey, AuthSettings
from services.gateway.transports.upstream.settings import UpstreamSettings
from tests.doubles.scripted_upstream import DONE, WHOLE, Answer, ScriptedUpstream, chunk, event
from tests.integration.gateway.fleet import Fleet, contents, lines

KEY = "sk-secret-of-this-gateway"


@pytest.fixture
async def far(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ScriptedUpstream]:
    monkeypatch.setenv("FAR_KEY", KEY)
    async with ScriptedUpstream() as one:
        yield one


def upstream(far: ScriptedUpstream, name: str = "far", **more: Any) -> UpstreamSettings:
    made = {"models": ("big",), "key_variable": "FAR_KEY", **more}
    return UpstreamSettings(name=name, url=far.url, **made)


async def started(bare: Fleet, far: ScriptedUpstream, **more: Any) -> Fleet:
    await bare.start(upstreams=(upstream(far, **more),))
    return bare


def error_of(stream: str) -> dict[str, Any]:
    """The error in place of an end."""
    assert "[DONE]" not in stream
    last = [line for line in stream.splitlines() if line.startswith("data: ")][-1]
    return json.loads(last[6:])["error"]


async def test_the_key_is_sent_and_told_to_nobody(bare: Fleet, far: ScriptedUpstream) -> None:
    fleet = await started(bare, far)
    body = json.dumps({"error": {"message": f"Bad key {KEY}", "param": KEY}}).encode()
    far.answers = [Answer(status=status, body=body) for status in (401, 400, 500)]

    answers = [await fleet.chat(model="big") for _ in range(3)]

    assert [f"Bearer {KEY}"] * 3 == [one.headers["authorization"] for one in far.asked]
    assert [502, 400, 502] == [one.status_code for one in answers]
    for one in answers:
        assert KEY not in one.text
        assert "'far'" in one.text
    assert KEY not in repr(fleet.gateway.services.settings)


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        (Answer(status=503, headers={"retry-after": "17"}, body=b"no"), 502, "upstream_failed"),
        (Answer(status=404, body=b"{}"), 502, "upstream_failed"),
        (Answer(status=307, headers={"location": "/v2"}, body=b"-"), 502, "upstream_failed"),
        (Answer(body=b'{"choices": []}'), 502, "upstream_failed"),
        (
            Answer(
                headers={"retry-after": "1"},
                body=b'{"error": {"message": "Slow.", "code": 429}}',
            ),
            429,
            "queue_full",
        ),
        (Answer(body=b"[" * 50_000), 502, "upstream_failed"),
        (Answer(pieces=(b"data: no json\n\n",)), 502, "upstream_failed"),
        (Answer(pieces=(b"data: " + b"x" * (9 << 20),)), 502, "upstream_failed"),
        (Answer(pieces=(event({"error": {"message": "Oops."}}),)), 502, "upstream_failed"),
        (Answer(pieces=()), 502, "upstream_failed"),
        (Answer(pieces=WHOLE[:2]), 502, "upstream_failed"),
        (Answer(pieces=WHOLE[:2], cut=True), 502, "upstream_failed"),
        (
            Answer(
                status=400,
                body=b'{"error": {"message": "x", "code": "context_length_exceeded"}}',
            ),
            400,
            "context_length_exceeded",
        ),
        (Answer(pieces=(chunk("a"), chunk(finish="content_filter"))), 400, None),
    ],
)
async def test_what_is_no_answer_is_an_error_that_names_the_upstream(
    bare: Fleet, far: ScriptedUpstream, answer: Answer, status: int, code: str | None
) -> None:
    fleet = await started(bare, far)
    far.answers = [answer]

    refused = await fleet.chat(model="big")

    error = refused.json()["error"]
    assert (status, code) == (refused.status_code, error["code"])
    assert "The upstream 'far' " in error["message"]
    assert answer.headers.get("retry-after") == refused.headers.get("retry-after")
    assert 1 == len(far.asked)


async def test_an_error_without_an_end_is_not_waited_for(
    bare: Fleet, far: ScriptedUpstream
) -> None:
    fleet = await started(bare, far)
    far.answers = [Answer(status=500, pieces=(b"x" * 100_000,), drip=b"y")]

    async with asyncio.timeout(20):
        refused = await fleet.chat(model="big")

    assert 502 == refused.status_code
    await far.until(lambda: far.left == 1)


async def test_nobody_listens_there(bare: Fleet, far: ScriptedUpstream) -> None:
    await far.stop()
    fleet = await started(bare, far)

    refused = await fleet.chat(model="big")

    assert (502, "upstream_failed") == (
        refused.status_code,
        refused.json()["error"]["code"],
    )


@pytest.mark.parametrize("cut", [True, False])
async def test_a_stream_that_breaks_off_ends_in_an_error_and_is_not_tried_again(
    bare: Fleet, far: ScriptedUpstream, other: ScriptedUpstream, cut: bool
) -> None:
    await bare.start(upstreams=(upstream(far), upstream(other, "other")))
    far.answers = [Answer(pieces=WHOLE[:2], cut=cut)]

    stream = await bare.stream_text(model="big")

    assert ["Far"] == contents(stream)
    assert "upstream_failed" == error_of(stream)["code"]
    assert [] == other.asked


async def test_another_upstream_is_asked_before_the_first_token(
    bare: Fleet, far: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    await bare.start(upstreams=(upstream(far), upstream(other, "other")))
    far.answers = [Answer(status=429, body=b"{}"), Answer(pieces=WHOLE[:1])]

    answers = [await bare.stream_text(model="big") for _ in range(2)]

    assert ["Far away"] * 2 == ["".join(contents(one)) for one in answers]
    assert (2, 2) == (len(far.asked), len(other.asked))
    counted = {"upstream": "far", "outcome": "QUEUE_FULL"}
    assert 1 == bare.metric("cortex_gateway_upstream_requests_total", **counted)


async def test_a_mistake_of_the_request_is_asked_of_no_other(
    bare: Fleet, far: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    await bare.start(upstreams=(upstream(far), upstream(other, "other")))
    far.answers = [Answer(status=422, body=b'{"detail": "no"}')]

    refused = await bare.chat(model="big")

    assert 400 == refused.status_code
    assert [] == other.asked


async def test_an_upstream_that_takes_no_more_is_told_as_a_full_queue(
    bare: Fleet, far: ScriptedUpstream
) -> None:
    fleet = await started(bare, far)
    far.answers = [Answer(status=429, headers={"retry-after": "42"}, body=b"{}")]

    refused = await fleet.chat(model="big")

    assert (429, "42") == (refused.status_code, refused.headers["retry-after"])
    assert "queue_full" == refused.json()["error"]["code"]


async def test_no_more_is_asked_of_it_than_is_set(bare: Fleet, far: ScriptedUpstream) -> None:
    fleet = await started(bare, far, streams=1)
    gate = asyncio.Event()
    far.answers = [Answer(head_gate=gate)]
    first = asyncio.create_task(fleet.chat(model="big"))
    await far.until(lambda: far.open == 1)

    async with asyncio.timeout(20):
        refused = await fleet.chat(model="big")
    gate.set()
    async with asyncio.timeout(20):
        answered = await first
        again = await fleet.chat(model="big")

    assert (429, "queue_full") == (refused.status_code, refused.json()["error"]["code"])
    assert "1" == refused.headers["retry-after"]
    assert (200, 200) == (answered.status_code, again.status_code)
    assert 2 == len(far.asked)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_head_that_does_not_come_is_given_up(
    bare: Fleet, far: ScriptedUpstream, stream: bool
) -> None:
    fleet = await started(bare, far, connect_seconds=0.2, first_byte_seconds=0.2)
    far.answers = [Answer(head_gate=asyncio.Event())]

    async with asyncio.timeout(20):
        refused = await fleet.chat(model="big", stream=stream)

    assert "upstream_failed" in refused.text
    assert "0.4 seconds" in refused.text
    await far.until(lambda: far.left == 1)


async def test_an_answer_that_stands_still_is_ended_though_comments_come(
    bare: Fleet, far: ScriptedUpstream
) -> None:
    fleet = await started(bare, far, idle_seconds=0.3)
    drip = b": still here\n\n" + chunk(role="assistant")
    far.answers = [Answer(pieces=WHOLE[:2], drip=drip)]

    async with asyncio.timeout(20):
        stream = await fleet.stream_text(model="big")

    assert ["Far"] == contents(stream)
    assert "timeout" == error_of(stream)["code"]
    await far.until(lambda: far.left == 1)


async def test_the_gateways_own_patience_is_not_the_upstreams(
    bare: Fleet, far: ScriptedUpstream
) -> None:
    await bare.start(
        upstreams=(upstream(far),),
        first_event_seconds=0.1,
        idle_seconds=0.1,
        keepalive_seconds=0.05,
    )
    gate = asyncio.Event()
    far.answers = [Answer(head_gate=gate)]
    ticks = bare.gateway.services.ticker

    asking = asyncio.create_task(bare.stream_text(model="big"))
    await far.until(lambda: far.open == 1)
    for _ in range(20):  # more than the patience, in the ticker's own time
        await asyncio.sleep(0.05)
    assert 1 == len(ticks)
    gate.set()
    async with asyncio.timeout(20):
        assert "Far away" == "".join(contents(await asking))


@pytest.mark.parametrize("behind", [0, 1])
async def test_a_client_that_leaves_ends_the_request_there(
    bare: Fleet, far: ScriptedUpstream, behind: int
) -> None:
    fleet = await started(bare, far)
    never = asyncio.Event()
    far.answers = [
        Answer(pieces=WHOLE, gate=never) if behind else Answer(head_gate=never),
    ]
    asking = asyncio.create_task(fleet.stream_text(model="big"))
    await far.until(lambda: far.open == 1)

    asking.cancel()

    await far.until(lambda: far.left == 1)
    async with asyncio.timeout(20):
        while (
            fleet.sample(
                "cortex_gateway_upstream_requests_total", upstream="far", outcome="cancelled"
            )
            != 1
        ):
            await asyncio.sleep(0.01)
    assert 0 == fleet.metric("cortex_gateway_upstream_requests_open", upstream="far")


async def test_a_prompt_is_used_also_where_its_client_left_before_the_first_token(
    bare: Fleet, far: ScriptedUpstream
) -> None:
    key = ApiKey(name="ann", key="sk-ann")
    await bare.start(AuthSettings(keys=(key,)), upstreams=(upstream(far),))
    bare.client.headers["authorization"] = "Bearer sk-ann"
    far.answers = [Answer(pieces=WHOLE, gate=asyncio.Event())]
    asking = asyncio.create_task(bare.stream_text(model="big"))
    await far.until(lambda: far.open == 1)
    (call,) = bare.gateway._upstreams.serving("big")[0]._calls
    async with asyncio.timeout(20):
        while not call.is_admitted:
            await asyncio.sleep(0.01)
        asking.cancel()
        while not (rows := [r for one in bare.registry.lessor.reported.values() for r in one]):
            await asyncio.sleep(0.05)

    (row,) = rows
    assert ("ann", 0) == (row.principal, row.completion_tokens)
    assert 30 < row.prompt_tokens < 100


async def test_deltas_come_as_the_upstream_sends_them(bare: Fleet, far: ScriptedUpstream) -> None:
    fleet = await started(bare, far)
    gate = asyncio.Event()
    far.answers = [Answer(pieces=(WHOLE[0] + WHOLE[1], b"".join(WHOLE[2:]) + DONE), gate=gate)]

    async with asyncio.timeout(20), fleet.streamed(model="big") as response:
        async for line in lines(response):
            if '"Far"' in line:
                gate.set()  # what comes behind it is sent only now
            if "[DONE]" in line:
                return
    pytest.fail("no end")


async def test_usage_of_a_server_that_counts_nothing_is_estimated(
    bare: Fleet, far: ScriptedUpstream
) -> None:
    fleet = await started(bare, far)
    far.answers = [Answer(pieces=WHOLE)]  # without [DONE], as some do

    told = (await fleet.chat(model="big")).json()["usage"]

    assert 2 == told["completion_tokens"]
    assert 30 < told["prompt_tokens"] < 100


async def test_the_context_of_a_key_holds_for_upstreams(bare: Fleet, far: ScriptedUpstream) -> None:
    key = ApiKey(name="ann", key="sk-ann", limits=KeyLimits(max_context_tokens=100))
    await bare.start(AuthSettings(keys=(key,)), upstreams=(upstream(far),))
    bare.client.headers["authorization"] = "Bearer sk-ann"

    refused = await bare.chat(model="big", messages=[{"role": "user", "content": "a" * 3000}])
    answered = await bare.chat(model="big")

    assert (400, 200) == (refused.status_code, answered.status_code)
    assert "context_length_exceeded" == refused.json()["error"]["code"]
    assert 0 < far.asked[0].body["max_tokens"] < 100


async def test_closing_ends_what_runs_there(bare: Fleet, far: ScriptedUpstream) -> None:
    fleet = await started(bare, far)
    far.answers = [Answer(head_gate=asyncio.Event())]
    asking = asyncio.create_task(fleet.stream_text(model="big"))
    await far.until(lambda: far.open == 1)

    await fleet.gateway._upstreams.close()

    await far.until(lambda: far.left == 1)
    async with asyncio.timeout(20):
        assert "upstream_failed" in await asking

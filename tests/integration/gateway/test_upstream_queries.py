"""Embeddings and counts of tokens by other servers."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from typing import Any

import openai
import pytest

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import key_service_pb2 as keys
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import FleetError, Reason
from services.gateway.limits.settings import KeyLimits
from services.gateway.routing.retry import ServedBy
from services.gateway.settings import ApiKey, AuthSettings
from services.gateway.transports.upstream.settings import UpstreamSettings
from tests.doubles.scripted_upstream import Answer, ScriptedUpstream
from tests.integration.gateway.far import near, only
from tests.integration.gateway.fleet import Fleet, chat_body
from tests.integration.gateway.keyed import bearer, keyed_fleet

PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA"
    "WjR9awAAAABJRU5ErkJggg=="
)


def entry(there: ScriptedUpstream, name: str = "far", **more: Any) -> UpstreamSettings:
    return UpstreamSettings(name=name, url=there.url, models={"big": "vast"}, **more)


def told(*vectors: Any, tokens: int | None = 5, **more: Any) -> Answer:
    data = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)]
    usage = {} if tokens is None else {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
    return Answer(body=json.dumps({"data": data, **usage, **more}).encode())


async def embed(fleet: Fleet, *texts: str, **more: Any) -> Any:
    body = {"model": "big", "input": list(texts), **more}
    return await fleet.client.post("/v1/embeddings", json=body)


async def test_texts_are_embedded_by_a_real_upstream_in_every_dialect(
    bare: Fleet, far: Fleet
) -> None:
    fleet = await near(bare, far)
    base = f"http://{fleet.gateway.address}"

    async with openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="k") as client:
        made = await client.embeddings.create(model="big", input=["a", "bc"])
    ollama = await fleet.client.post("/api/embed", json={"model": "big", "input": ["a", "bc"]})
    one = await fleet.client.post("/api/embeddings", json={"model": "big", "prompt": "a"})
    here = await far.client.post(
        "/v1/embeddings",
        json={"model": "vast", "input": ["a", "bc"]},
        headers={"authorization": "Bearer sk-far-away"},
    )

    expected = [vector["embedding"] for vector in here.json()["data"]]
    assert expected == [pytest.approx(vector.embedding) for vector in made.data]
    assert expected == [pytest.approx(vector) for vector in ollama.json()["embeddings"]]
    assert expected[0] == pytest.approx(one.json()["embedding"])
    assert here.json()["usage"]["prompt_tokens"] == made.usage.prompt_tokens
    assert "big" == made.model


async def test_what_is_posted_and_what_comes_back(bare: Fleet, there: ScriptedUpstream) -> None:
    await bare.start(upstreams=(entry(there, extra_fields="vllm"),))
    packed = base64.b64encode(struct.pack("<3f", 3.0, 4.0, 9.0)).decode()
    there.answers = [told([3, 4, 9], packed)]

    answer = await embed(bare, "a", "b", dimensions=2, truncate=True)

    (asked,) = there.asked
    assert "/v1/embeddings" == asked.path
    assert {
        "model": "vast",
        "input": ["a", "b"],
        "encoding_format": "float",
        "dimensions": 2,
        "truncate_prompt_tokens": -1,
    } == asked.body
    for vector in answer.json()["data"]:
        assert [0.6, 0.8] == pytest.approx(vector["embedding"])
    assert 5 == answer.json()["usage"]["prompt_tokens"]


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (told([1.0]), 502),
        (told([1.0], [1.0, 2.0]), 502),
        (told([1.0], [1e300]), 502),
        (told([], []), 502),
        (told("AAAA", "???"), 502),
        (Answer(body=b"[" * 5000), 502),
        (Answer(body=b'{"error": {"message": "Slow.", "code": 429}}'), 429),
        (Answer(status=404, body=b'{"error": {"message": "No embeddings."}}'), 502),
        (Answer(status=400, body=b'{"error": {"message": "Bad.", "param": "input"}}'), 400),
        (Answer(pieces=(b"data: x\n\n",)), 502),
    ],
)
async def test_what_is_no_answer_is_an_error_that_names_the_upstream(
    bare: Fleet, there: ScriptedUpstream, answer: Answer, status: int
) -> None:
    await bare.start(upstreams=(entry(there),))
    there.answers = [answer]

    refused = await embed(bare, "a", "b")

    assert status == refused.status_code
    assert "The upstream 'far' " in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("bounds", "answer", "status"),
    [
        (
            {"connect_seconds": 0.2, "first_byte_seconds": 0.2},
            Answer(head_gate=asyncio.Event()),
            502,
        ),
        ({"answer_seconds": 0.5}, Answer(pieces=(b"{",), drip=b" "), 504),
    ],
)
async def test_an_answer_that_does_not_come_or_end_is_given_up(
    bare: Fleet, there: ScriptedUpstream, bounds: Any, answer: Answer, status: int
) -> None:
    await bare.start(upstreams=(entry(there, **bounds),))
    there.answers = [answer]

    async with asyncio.timeout(20):
        refused = await embed(bare, "a")

    assert status == refused.status_code
    await there.until(lambda: there.left == 1)


async def test_limits_usage_and_metrics_are_as_for_generations(
    bare: Fleet, there: ScriptedUpstream
) -> None:
    key = ApiKey(name="ann", key="sk-ann", limits=KeyLimits(tokens_per_minute=60))
    await bare.start(AuthSettings(keys=(key,)), upstreams=(entry(there),))
    bare.client.headers["authorization"] = "Bearer sk-ann"
    there.answers = [told([1.0], tokens=50)]

    answers = [await embed(bare, "some thirty letters of a text") for _ in range(2)]
    async with asyncio.timeout(20):
        while not (rows := [r for one in bare.registry.lessor.reported.values() for r in one]):
            await asyncio.sleep(0.05)

    assert [200, 429] == [one.status_code for one in answers]
    assert 1 == len(there.asked)
    assert ("ann", 50) == (rows[0].principal, rows[0].prompt_tokens)
    counted = {"upstream": "far", "outcome": "completed"}
    assert 1 == bare.metric("cortex_gateway_upstream_requests_total", **counted)


async def test_what_it_does_not_count_is_estimated(bare: Fleet, there: ScriptedUpstream) -> None:
    await bare.start(upstreams=(entry(there),))
    there.answers = [told([1.0], tokens=None)]

    assert 12 == (await embed(bare, "x" * 30)).json()["usage"]["prompt_tokens"]


async def test_the_fleet_comes_first_and_another_upstream_next(
    bare: Fleet, there: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    entries = [
        UpstreamSettings(name=name, url=one.url, models=("tiny", "big"))
        for name, one in (("far", there), ("other", other))
    ]
    await bare.start(upstreams=tuple(entries))
    await bare.add_neuron("here")
    there.answers = [Answer(status=503, body=b"no")]
    other.answers = [told([1.0])]

    here = await bare.client.post("/v1/embeddings", json={"model": "tiny", "input": "a"})
    assert (200, 0) == (here.status_code, len(there.asked))
    assert 200 == (await embed(bare, "a")).status_code
    assert (1, 1) == (len(there.asked), len(other.asked))


async def test_what_the_fleet_cannot_serve_is_embedded_there(
    bare: Fleet, there: ScriptedUpstream
) -> None:
    known = UpstreamSettings(name="far", url=there.url, models=("tiny",))
    await bare.start(upstreams=(known,))
    bare.registry.steps = [FleetError(Reason.NO_ROOM, "Not here.")]
    there.answers = [told([1.0])]

    made = await bare.client.post("/v1/embeddings", json={"model": "tiny-alias", "input": "a"})

    assert 200 == made.status_code
    assert "tiny" == there.asked[0].body["model"]


async def test_no_more_is_asked_of_it_than_is_set(bare: Fleet, there: ScriptedUpstream) -> None:
    await bare.start(upstreams=(entry(there, streams=1),))
    gate = asyncio.Event()
    there.answers = [Answer(body=told([1.0]).body, head_gate=gate)]
    first = asyncio.create_task(embed(bare, "a"))
    await there.until(lambda: there.open == 1)

    async with asyncio.timeout(20):
        refused = await embed(bare, "a")
        gate.set()
        assert 200 == (await first).status_code

    assert 429 == refused.status_code


async def count(fleet: Fleet, **more: Any) -> Any:
    body = chat_body(model="big", **more)
    return await fleet.client.post("/v1/messages/count_tokens", json=body)


async def test_tokens_are_counted_as_vllm_does(bare: Fleet, there: ScriptedUpstream) -> None:
    await bare.start(upstreams=(entry(there, counts="vllm", extra_fields="vllm"),))
    there.answers = [Answer(body=b'{"count": 17, "max_model_len": 4096, "tokens": [1, 2]}')]
    tool = {"name": "look", "input_schema": {"type": "object"}}

    counted = await count(bare, tools=[tool])
    response = await bare.client.post(
        "/v1/responses/input_tokens", json={"model": "big", "input": "Hi"}
    )

    assert {"input_tokens": 17} == counted.json()
    assert 17 == response.json()["input_tokens"]
    first, _ = there.asked
    assert "/tokenize" == first.path
    assert "vast" == first.body["model"]
    assert "user" == first.body["messages"][-1]["role"]
    assert "look" == first.body["tools"][0]["function"]["name"]


async def test_tokens_are_counted_as_llama_server_does(
    bare: Fleet, there: ScriptedUpstream
) -> None:
    await bare.start(upstreams=(entry(there, counts="llama-server"),))
    there.answers = [Answer(body=b'{"prompt": "<s>Hi"}'), Answer(body=b'{"tokens": [1, 2, 3]}')]

    assert {"input_tokens": 3} == (await count(bare)).json()

    template, tokenize = there.asked
    assert ("/apply-template", "/tokenize") == (template.path, tokenize.path)
    assert {"content": "<s>Hi", "add_special": True, "parse_special": True} == tokenize.body


async def test_another_cortex_counts_what_it_would_have_been_asked_for(
    bare: Fleet, far: Fleet
) -> None:
    fleet = await near(bare, far, counts="anthropic")
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    looked = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": 1}}
    seen = [{"type": "image", "source": source}, {"type": "text", "text": "That."}]
    result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": seen}
    tool = {"name": "look", "description": "Looks.", "input_schema": {"type": "object"}}
    body = chat_body(
        model="big",
        system="Be kind.",
        tools=[tool],
        tool_choice={"type": "any"},
        messages=[
            {"role": "user", "content": "Look."},
            {"role": "assistant", "content": [{"type": "text", "text": "I do."}, looked]},
            {"role": "user", "content": [result, {"type": "text", "text": "And?"}]},
        ],
    )

    counted = await fleet.client.post("/v1/messages/count_tokens", json=body)
    headers = {"authorization": "Bearer sk-far-away"}
    there = {**body, "model": "vast"}
    direct = await far.client.post("/v1/messages/count_tokens", json=there, headers=headers)

    assert {"input_tokens": 11} == counted.json() == direct.json()
    passed_on, itself = only(far).counted
    assert passed_on.chat == itself.chat


async def test_variables_of_a_template_are_not_counted_in_anthropics_form(
    bare: Fleet, there: ScriptedUpstream
) -> None:
    await bare.start(upstreams=(entry(there, counts="anthropic"),))
    chat = conversation.Chat(template_variables_json="{}")
    request = neuron.CountTokensRequest(model="big", chat=chat)
    queries = bare.gateway.services.destinations.queries

    with pytest.raises(FleetError, match="chat_template_kwargs"):
        await queries.count_tokens(request, ServedBy(), request_id="r")
    text = neuron.CountTokensRequest(model="big", text="Hi")
    with pytest.raises(FleetError, match="counts chats alone"):
        await queries.count_tokens(text, ServedBy(), request_id="r")
    assert [] == there.asked


@pytest.mark.parametrize(
    ("way", "answer", "status"),
    [
        ("vllm", Answer(body=b"{}"), 502),
        ("anthropic", Answer(body=b'{"count": 1}'), 502),
        ("vllm", Answer(status=404, body=b"{}"), 502),
        ("vllm", Answer(body=b'{"count": "many"}'), 502),
        ("llama-server", Answer(body=b'{"content": "x"}'), 502),
        ("vllm", Answer(body=b'{"error": {"message": "Slow.", "code": 429}}'), 429),
    ],
)
async def test_what_is_no_count_is_an_error_in_the_dialects_words(
    bare: Fleet, there: ScriptedUpstream, way: Any, answer: Answer, status: int
) -> None:
    await bare.start(upstreams=(entry(there, counts=way),))
    there.answers = [answer]

    refused = await count(bare)

    assert status == refused.status_code
    assert "error" == refused.json()["type"]
    assert "The upstream 'far' " in refused.json()["error"]["message"]


async def test_pictures_are_not_counted(bare: Fleet, there: ScriptedUpstream) -> None:
    await bare.start(upstreams=(entry(there, counts="vllm"),))
    source = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    turn = {"role": "user", "content": [{"type": "image", "source": source}]}

    refused = await count(bare, messages=[turn])

    assert 501 == refused.status_code
    assert [] == there.asked


async def test_who_does_not_count_is_passed_over(
    bare: Fleet, there: ScriptedUpstream, other: ScriptedUpstream
) -> None:
    await bare.start(upstreams=(entry(there), entry(other, "other", counts="vllm")))
    other.answers = [Answer(body=b'{"count": 4}')]

    assert {"input_tokens": 4} == (await count(bare)).json()
    assert [] == there.asked


async def test_a_key_embeds_and_counts_by_the_models_that_it_is_for(
    there: ScriptedUpstream,
) -> None:
    async with keyed_fleet(upstreams=(entry(there, counts="vllm"),)) as fleet:
        secret = await fleet.key("mine", scopes=keys.KeyScopes(models=["other"]))
        fleet.client.headers.update(bearer(secret))

        assert 404 == (await embed(fleet, "a")).status_code
        assert 404 == (await count(fleet)).status_code

    assert [] == there.asked


async def test_what_four_gateways_have_sent_on_goes_no_further(
    bare: Fleet, there: ScriptedUpstream
) -> None:
    await bare.start(upstreams=(entry(there, counts="vllm"),))
    there.answers = [told([1.0])]

    for hops, status in (("3", 200), ("4", 404)):
        bare.client.headers["x-cortex-hops"] = hops
        assert status == (await embed(bare, "a")).status_code
    assert 404 <= (await count(bare)).status_code <= 501

    assert ["4"] == [one.headers["x-cortex-hops"] for one in there.asked]

"""Other servers that answer requests: a real gateway as the upstream of another one."""

from __future__ import annotations

import asyncio
from typing import Any

import anthropic
import msgspec
import openai
import pytest

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import registry_service_pb2 as registry
from services.backplane.errors import FleetError, Reason
from tests.doubles.scripted_neuron import Script, reasoning, text, tool_call
from tests.integration.gateway.far import near, only, upstream
from tests.integration.gateway.fleet import Fleet, chat_body, contents

TOOL: Any = {
    "type": "function",
    "function": {"name": "look", "parameters": {"type": "object", "properties": {}}},
}


@pytest.mark.parametrize("stream", [True, False])
async def test_a_model_that_only_the_upstream_has_is_answered_there(
    bare: Fleet, far: Fleet, stream: bool
) -> None:
    fleet = await near(bare, far)
    if stream:
        answer = await fleet.stream_text(model="big")
        assert "Hello world" == "".join(contents(answer))
        assert answer.rstrip().endswith("[DONE]")
        assert '"model":"big"' in answer
    else:
        whole = (await fleet.chat(model="big")).json()
        assert "Hello world" == whole["choices"][0]["message"]["content"]
        assert "big" == whole["model"]
        assert whole["usage"]["completion_tokens"] == 2

    (request,) = only(far).requests
    assert ("vast", "near") == (request.model, request.principal)


async def test_every_dialect_is_answered_there(bare: Fleet, far: Fleet) -> None:
    fleet = await near(bare, far)
    base = f"http://{fleet.gateway.address}"
    turn: Any = {"role": "user", "content": "Hi"}

    async with openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="k") as client:
        response = await client.responses.create(model="big", input="Hi", instructions="Be kind.")
        plain = await client.completions.create(model="big", prompt="Hi", max_tokens=5)
    async with anthropic.AsyncAnthropic(base_url=base, api_key="k") as client:
        message = await client.messages.create(
            model="big", messages=[turn], system="Mine.", max_tokens=50, stop_sequences=["x"]
        )
    ollama = await fleet.client.post(
        "/api/chat", json={"model": "big", "messages": [turn], "stream": False}
    )

    assert "Hello world" == response.output_text
    assert "Hello world" == plain.choices[0].text
    assert "Hello world" == getattr(message.content[0], "text", "")
    assert "Hello world" == ollama.json()["message"]["content"]
    first, second, third, _ = only(far).requests
    assert "Be kind." == first.chat.messages[0].parts[0].text
    assert ("Hi", 5) == (second.text, second.stop.max_tokens)
    assert (50, ["x"]) == (third.stop.max_tokens, list(third.stop.stop_strings))


async def test_a_streamed_message_has_the_usage_of_the_upstream(bare: Fleet, far: Fleet) -> None:
    fleet = await near(bare, far)
    only(far).scripts = [Script((reasoning("Hm."), text("Yes."), tool_call(0, "{}", name="look")))]
    tool: Any = {"name": "look", "input_schema": {"type": "object"}}
    turn: Any = {"role": "user", "content": "Hi"}

    async with (
        anthropic.AsyncAnthropic(base_url=f"http://{fleet.gateway.address}", api_key="k") as client,
        client.messages.stream(
            model="big", messages=[turn], max_tokens=2000, tools=[tool],
            thinking={"type": "enabled", "budget_tokens": 1024},
        ) as stream,
    ):  # fmt: skip
        message = await stream.get_final_message()

    assert ["thinking", "text", "tool_use"] == [block.type for block in message.content]
    assert "tool_use" == message.stop_reason
    assert (4, 3) == (message.usage.input_tokens, message.usage.cache_read_input_tokens)
    (request,) = only(far).requests
    assert (True, 1024) == (request.reasoning.enabled, request.reasoning.budget_tokens)


async def test_reasoning_tool_calls_and_log_probabilities_come_through(
    bare: Fleet, far: Fleet
) -> None:
    fleet = await near(bare, far)
    likely = generation.TokenLogprob(text=b"Yes", logprob=-0.25)
    rich = generation.GenerateResponse(
        text=generation.TextDelta(text="Yes", token_ids=[5], logprobs=[likely])
    )
    only(far).scripts = [
        Script(
            (
                reasoning("Hm."),
                rich,
                tool_call(0, '{"a":', call_id="c1", name="look"),
                tool_call(0, "1}"),
                tool_call(1, "{}", call_id="c2", name="look"),
            ),
            reason=generation.FINISH_REASON_TOOL_CALLS,
        )
    ]

    answer = (await fleet.chat(model="big", tools=[TOOL], logprobs=True)).json()

    (choice,) = answer["choices"]
    message = choice["message"]
    assert ("Hm.", "Yes") == (message["reasoning_content"], message["content"])
    assert "tool_calls" == choice["finish_reason"]
    told = [
        (c["id"], c["function"]["name"], c["function"]["arguments"]) for c in message["tool_calls"]
    ]
    assert [("c1", "look", '{"a":1}'), ("c2", "look", "{}")] == told
    assert [("Yes", -0.25)] == [(o["token"], o["logprob"]) for o in choice["logprobs"]["content"]]


@pytest.mark.parametrize("reason", [Reason.NO_NEURONS, Reason.NO_ROOM, Reason.LOAD_FAILED])
@pytest.mark.parametrize("name", ["tiny", "tiny-alias"])
async def test_what_the_fleet_cannot_serve_is_answered_there(
    bare: Fleet, far: Fleet, reason: Reason, name: str
) -> None:
    fleet = await near(bare, far)
    fleet.registry.steps = [FleetError(reason, "Not here.")]

    answer = (await fleet.chat(model=name)).json()

    assert "Hello world" == answer["choices"][0]["message"]["content"]
    assert name == answer["model"]


async def test_what_the_fleet_can_serve_stays_here(bare: Fleet, far: Fleet) -> None:
    fleet = await near(bare, far)
    here = await fleet.add_neuron("here")

    await fleet.chat()

    assert (1, 0) == (len(here.requests), len(only(far).requests))


async def test_a_mistake_of_the_request_is_not_sent_on(bare: Fleet, far: Fleet) -> None:
    fleet = await near(bare, far)
    bad = FleetError(Reason.CONTEXT_TOO_LONG, "Too long.")
    await fleet.add_neuron("here", Script(refuse=bad))

    refused = await fleet.chat()

    assert 400 == refused.status_code
    assert [] == only(far).requests


async def test_a_model_that_is_always_there_is_never_asked_of_the_fleet(
    bare: Fleet, far: Fleet
) -> None:
    fleet = await near(bare, far, when="always")
    here = await fleet.add_neuron("here")

    answer = (await fleet.chat()).json()

    assert "Hello world" == answer["choices"][0]["message"]["content"]
    assert (0, 1) == (len(here.requests), len(only(far).requests))


async def test_several_choices_are_asked_there(bare: Fleet, far: Fleet) -> None:
    fleet = await near(bare, far, streams=2)

    answer = (await fleet.chat(model="big", n=5, seed=3)).json()

    assert ["Hello world"] * 5 == [c["message"]["content"] for c in answer["choices"]]
    assert {3, 4, 5, 6, 7} == {one.sampling.seed for one in only(far).requests}


async def test_the_error_of_the_upstream_names_it(bare: Fleet, far: Fleet) -> None:
    fleet = await near(bare, far)
    only(far).scripts = [Script(refuse=FleetError(Reason.BAD_REQUEST, "No such thing.", "stop"))]

    refused = await fleet.chat(model="big")

    assert 400 == refused.status_code
    error = refused.json()["error"]
    assert "'far'" in error["message"]
    assert "No such thing" in error["message"]
    assert "stop" == error["param"]


async def test_the_list_of_models_has_them(bare: Fleet, far: Fleet) -> None:
    fleet = await near(bare, far)

    listed = {m["id"]: m for m in (await fleet.client.get("/v1/models")).json()["data"]}

    assert ("cortex", ["far"]) == (listed["tiny"]["owned_by"], listed["tiny"]["upstreams"])
    assert ("far", "upstream") == (listed["big"]["owned_by"], listed["big"]["status"])
    assert 200 == (await fleet.client.get("/v1/models/big")).status_code
    assert "big" in {m["model"] for m in (await fleet.client.get("/api/tags")).json()["models"]}


async def test_what_it_cannot_be_asked_is_refused_by_name(bare: Fleet, far: Fleet) -> None:
    fleet = await near(bare, far, extra_fields="none")

    refused = await fleet.chat(model="big", top_k=5)
    tokens = await fleet.client.post("/v1/completions", json={"model": "big", "prompt": [1, 2]})
    regex = await fleet.chat(model="big", guided_regex="a+")
    counted = await fleet.client.post("/v1/messages/count_tokens", json=chat_body(model="big"))

    for answer, field in ((refused, "top_k"), (tokens, "prompt"), (regex, "guided_regex")):
        assert (400, field) == (answer.status_code, answer.json()["error"]["param"])
        assert "'far'" in answer.json()["error"]["message"]
    assert 501 == counted.status_code
    assert [] == only(far).requests


async def test_where_the_upstream_is_unable_the_error_is_the_fleets(
    bare: Fleet, far: Fleet
) -> None:
    fleet = await near(bare, far, extra_fields="none")
    fleet.registry.steps = [FleetError(Reason.NO_ROOM, "Not here.")]

    refused = await fleet.chat(top_k=5)

    assert (503, "no_room") == (refused.status_code, refused.json()["error"]["code"])


async def test_an_alias_falls_back_behind_the_upstream(bare: Fleet, far: Fleet) -> None:
    await bare.start(upstreams=(upstream(far, models={"tiny2": "vast"}),))
    rules = registry.AliasRules(alias="careful", fallback="tiny", system="Be brief.")
    bare.registry.add_model("tiny2", ["careful"], alias_rules=[rules])
    while bare.gateway.services.view.rules("careful") is None:
        await bare.gateway.services.view.changed()
    here = await bare.add_neuron("here")
    bare.registry.steps = [FleetError(Reason.NO_ROOM, "Not here.")]
    only(far).scripts = [Script(), Script(refuse=FleetError(Reason.INTERNAL, "Oops."))]

    there = (await bare.chat(model="careful")).json()
    back = (await bare.chat(model="careful")).json()

    assert ["careful"] * 2 == [there["model"], back["model"]]
    assert ["Hello world"] * 2 == [o["choices"][0]["message"]["content"] for o in (there, back)]
    first, _ = only(far).requests
    assert first.chat.messages[0].parts[0].text.startswith("Be brief.")
    assert 1 == len(here.requests)


async def test_every_model_may_be_answered_there(bare: Fleet, far: Fleet) -> None:
    fleet = await near(bare, far, models={"*": "vast"})

    unknown = (await fleet.chat(model="made up")).json()
    fleet.registry.steps = [FleetError(Reason.NO_ROOM, "Not here.")]
    here = (await fleet.chat(model="tiny-alias")).json()

    assert ["made up", "tiny-alias"] == [unknown["model"], here["model"]]
    assert 2 == len(only(far).requests)
    requests = "cortex_gateway_requests_total"
    shown = [line for line in fleet.exposition().splitlines() if line.startswith(requests)]
    assert [True, False] == [any('"unknown"' in o for o in shown), any("made" in o for o in shown)]
    listed = {m["id"]: m for m in (await fleet.client.get("/v1/models")).json()["data"]}
    assert {"tiny", "tiny-alias"} == listed.keys()
    assert ["far"] == listed["tiny"]["upstreams"]


async def test_every_model_keeps_its_name_there(bare: Fleet, far: Fleet) -> None:
    fleet = await near(bare, far, models=("*",))

    known = await fleet.chat(model="vast")
    unknown = await fleet.chat(model="no such")
    counted = await fleet.client.post("/v1/messages/count_tokens", json=chat_body(model="vast"))

    assert (200, 502, 501) == (known.status_code, unknown.status_code, counted.status_code)
    assert "no such" in unknown.json()["error"]["message"]


async def test_counts_wait_for_the_fleet_where_it_is_not_known_yet(bare: Fleet, far: Fleet) -> None:
    await bare.registry.start()
    await bare.registry.stop()
    await bare.start_gateway(is_early=True, upstreams=(upstream(far),))

    refuse = bare.gateway.services.destinations.directory.refuse_elsewhere

    refuse("tiny", "to count tokens")  # it may be the fleet's
    bare.gateway._upstreams.use((upstream(far, when="always"),))
    with pytest.raises(FleetError, match="another server alone"):
        refuse("tiny", "to count tokens")


@pytest.mark.parametrize("when", ["fallback", "always"])
async def test_gateways_that_are_each_others_upstreams_make_no_circle(
    bare: Fleet, far: Fleet, when: str
) -> None:
    there = upstream(far, models=("*",), when=when)
    fleet = await near(bare, far, models=("*",), when=when)
    back = msgspec.structs.replace(there, name="back", url=f"http://{fleet.gateway.address}/v1")
    far.gateway._upstreams.use((back,))

    async with asyncio.timeout(60):
        refused = await fleet.chat(model="nobody")

    assert 400 <= refused.status_code < 600
    asked = {"upstream": "back", "outcome": "UPSTREAM_FAILED"}
    assert 2 == far.metric("cortex_gateway_upstream_requests_total", **asked)


async def test_the_next_request_goes_by_the_connection_of_the_last(bare: Fleet, far: Fleet) -> None:
    fleet = await near(bare, far)
    (one,) = fleet.gateway._upstreams.serving("big")
    pool: Any = one._client._transport
    used: list[Any] = []

    for _ in range(2):
        assert 200 == (await fleet.chat(model="big")).status_code
        async with asyncio.timeout(20):
            while one._calls:
                await asyncio.sleep(0.01)
        used += pool._pool.connections

    assert 2 == len(used)
    assert used[0] is used[1]

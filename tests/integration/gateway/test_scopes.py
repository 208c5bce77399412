"""What a key is for: other models do not exist for it, other dialects are refused to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
from wsproto.events import AcceptConnection

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import key_service_pb2 as pb
from cortex.v1 import limits_pb2
from cortex.v1 import registry_service_pb2 as registry
from services.backplane.errors import FleetError, Reason
from tests.integration.gateway.fleet import SECONDS, chat_body
from tests.integration.gateway.keyed import KeyedFleet, bearer, keyed_fleet
from tests.integration.gateway.responses_socket import connected

TURN: Any = [{"role": "user", "content": "Hi"}]
# A request for a model in every dialect that asks for one.
ASKS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": TURN},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/responses": {"input": "Hi"},
    "/v1/responses/input_tokens": {"input": "Hi"},
    "/v1/responses/compact": {"input": "Hi"},
    "/v1/embeddings": {"input": "Hi"},
    "/v1/messages": {"messages": TURN, "max_tokens": 5},
    "/v1/messages/count_tokens": {"messages": TURN},
    "/api/chat": {"messages": TURN, "stream": False},
    "/api/generate": {"prompt": "Hi", "stream": False},
    "/api/embed": {"input": "Hi"},
    "/api/embeddings": {"prompt": "Hi"},
    "/api/show": {},
    "/api/pull": {"stream": False},
}
DIALECTS = {
    "/v1/chat/completions": "openai_chat",
    "/v1/completions": "openai_completions",
    "/v1/responses": "openai_responses",
    "/v1/responses/input_tokens": "openai_responses",
    "/v1/responses/compact": "openai_responses",
    "/v1/embeddings": "openai_embeddings",
    "/v1/messages": "anthropic_messages",
    "/v1/messages/count_tokens": "anthropic_messages",
    "/api/chat": "ollama",
    "/api/generate": "ollama",
    "/api/embed": "ollama",
    "/api/embeddings": "ollama",
    "/api/show": "ollama",
    "/api/pull": "ollama",
}


@pytest.fixture
async def fleet() -> AsyncIterator[KeyedFleet]:
    async with keyed_fleet() as started:
        yield started


async def ask(fleet: KeyedFleet, path: str, model: str, secret: str) -> httpx.Response:
    body = ASKS[path] | {"model": model}
    headers = {**bearer(secret), "x-request-id": "mine"}  # which some envelopes repeat
    return await fleet.client.post(path, json=body, headers=headers)


@pytest.mark.parametrize("path", ASKS)
async def test_other_models_are_answered_as_those_that_do_not_exist(fleet, path):
    scoped = await fleet.key("scoped", scopes=pb.KeyScopes(models=["tin?"]))
    whole = await fleet.key("whole")

    hidden = await ask(fleet, path, "other", scoped)
    missing = await ask(fleet, path, "zzz", scoped)
    known = await ask(fleet, path, "tiny", scoped)
    seen = await ask(fleet, path, "other", whole)

    assert 404 == hidden.status_code == missing.status_code
    assert missing.text.replace("zzz", "other") == hidden.text
    assert 404 not in {known.status_code, seen.status_code}


@pytest.mark.parametrize("path", ASKS)
async def test_other_dialects_are_refused_in_their_own_words(fleet, path):
    dialect = DIALECTS[path]
    others = sorted({*DIALECTS.values()} - {dialect})
    mine = await fleet.key("mine", scopes=pb.KeyScopes(dialects=[dialect]))
    foreign = await fleet.key("foreign", scopes=pb.KeyScopes(dialects=others))

    let_in = await ask(fleet, path, "tiny", mine)
    refused = await ask(fleet, path, "tiny", foreign)

    assert 403 != let_in.status_code
    assert 403 == refused.status_code
    said = refused.json()
    if dialect == "anthropic_messages":
        assert "permission_error" == said["error"]["type"]
    elif dialect == "ollama":
        assert dialect in said["error"]
    else:
        assert dialect in said["error"]["message"]


async def test_aliases_are_names_of_their_own(fleet):
    by_name = await fleet.key("by name", scopes=pb.KeyScopes(models=["other"]))
    by_alias = await fleet.key("by alias", scopes=pb.KeyScopes(models=["sec*"]))

    path = "/v1/chat/completions"
    assert 200 == (await ask(fleet, path, "second", by_name)).status_code
    assert 200 == (await ask(fleet, path, "second", by_alias)).status_code
    assert 404 == (await ask(fleet, path, "other", by_alias)).status_code


async def test_listings_show_what_a_key_is_for(fleet):
    scoped = await fleet.key("scoped", scopes=pb.KeyScopes(models=["sec*"]))

    async def names(path: str, key: str, name: str, **headers: str) -> set[str]:
        answer = await fleet.client.get(path, headers={**bearer(scoped), **headers})
        return {one[name] for one in answer.json()[key]}

    assert {"second"} == await names("/v1/models", "data", "id")
    assert {"second"} == await names("/models", "data", "id", **{"anthropic-version": "1"})
    assert {"second"} == await names("/api/tags", "models", "name")
    assert {"second"} == await names("/api/ps", "models", "name")
    one = await fleet.client.get("/v1/models/other", headers=bearer(scoped))
    assert 404 == one.status_code
    text = (await fleet.client.get("/v1/models", headers=bearer(scoped))).text
    assert "tiny" not in text
    assert "other" not in text


async def test_a_group_narrows_what_its_keys_are_for(fleet):
    await fleet.keys.put_group(pb.KeyGroup(name="team", scopes=pb.KeyScopes(models=["tiny"])))
    secret = await fleet.key("ann", group="team", scopes=pb.KeyScopes(models=["*"]))

    listed = await fleet.client.get("/v1/models", headers=bearer(secret))

    assert 404 == (await ask(fleet, "/v1/chat/completions", "other", secret)).status_code
    assert {"tiny", "tiny-alias"} == {one["id"] for one in listed.json()["data"]}


async def test_turns_of_a_websocket_are_scoped_and_end_with_their_key(fleet):
    secret = await fleet.key("ann", scopes=pb.KeyScopes(models=["tiny"]))
    header = (b"authorization", f"Bearer {secret}".encode())
    async with connected(fleet.gateway.address) as socket:
        assert isinstance(await socket.open(fleet.gateway.address, header), AcceptConnection)
        allowed = await socket.turn(input="Hi")
        hidden = await socket.turn(input="Hi", model="other")
        await fleet.keys.revoke("ann")
        await fleet.followed()
        refused = await socket.turn(input="Hi")

    assert "response.completed" == allowed[-1]["type"]
    assert 404 == hidden[-1]["status"]
    assert 401 == refused[-1]["status"]


async def test_classes_are_those_of_the_key_and_its_group(fleet):
    await fleet.keys.put_group(
        pb.KeyGroup(name="night", scopes=pb.KeyScopes(usual_class="batch", highest_class="default"))
    )
    secret = await fleet.key("ann", group="night")

    for asked in ({}, {"x-cortex-class": "interactive"}):
        headers = {**bearer(secret), **asked}
        await fleet.client.post("/v1/chat/completions", json=chat_body(), headers=headers)

    classes = [request.work_class for request in fleet.neurons[0].requests]
    assert [generation.WORK_CLASS_BATCH, generation.WORK_CLASS_DEFAULT] == classes


async def test_the_console_shows_the_whole_fleet_and_so_nothing_to_a_scoped_key(fleet):
    await fleet.keys.put_group(pb.KeyGroup(name="team", scopes=pb.KeyScopes(models=["tiny"])))
    secret = await fleet.key("ann", group="team", roles=["user", "operator"])

    for path in ("/ui/requests", "/ui/explain?model=other"):
        refused = await fleet.client.get(path, headers=bearer(secret))
        assert 403 == refused.status_code
        assert "whole fleet" in refused.json()["error"]["message"]


async def test_the_sdks_of_both_see_errors_of_their_own_kind(fleet):
    secret = await fleet.key("ann", scopes=pb.KeyScopes(models=["tiny"], dialects=["openai_chat"]))
    base = f"http://{fleet.gateway.address}"
    of_openai = openai.AsyncOpenAI(base_url=f"{base}/v1", api_key=secret, max_retries=0)
    of_anthropic = anthropic.AsyncAnthropic(base_url=base, api_key=secret, max_retries=0)
    async with of_openai, of_anthropic:
        answer = await of_openai.chat.completions.create(model="tiny", messages=TURN)
        with pytest.raises(openai.NotFoundError):
            await of_openai.chat.completions.create(model="other", messages=TURN)
        with pytest.raises(openai.PermissionDeniedError):
            await of_openai.responses.create(model="tiny", input="Hi")
        with pytest.raises(anthropic.PermissionDeniedError):
            await of_anthropic.messages.create(model="tiny", messages=TURN, max_tokens=5)
        await fleet.keys.revoke("ann")
        await fleet.followed()
        with pytest.raises(openai.AuthenticationError):
            await of_openai.models.list()
        with pytest.raises(anthropic.AuthenticationError):
            await of_anthropic.models.list()

    assert "Hello world" == answer.choices[0].message.content


async def test_limits_of_a_key_and_of_its_group_hold_as_those_of_the_file(fleet):
    await fleet.keys.put_group(
        pb.KeyGroup(name="team", limits=limits_pb2.Limits(max_output_tokens=5))
    )
    limits = limits_pb2.Limits(requests_per_minute=1)
    secret = await fleet.key("ann", group="team", limits=limits)
    base = f"http://{fleet.gateway.address}/v1"
    async with openai.AsyncOpenAI(base_url=base, api_key=secret, max_retries=0) as client:
        await client.chat.completions.create(model="tiny", messages=TURN)
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(model="tiny", messages=TURN)

    assert 5 == fleet.neurons[0].requests[-1].stop.max_tokens
    assert int(refused.value.response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
@pytest.mark.parametrize("keep", [0, "0", "59s", "1ms", 1e-9])
async def test_only_keys_that_operate_let_go_of_a_model(fleet, path, keep):
    user = await fleet.key("user")
    operator = await fleet.key("operator", roles=["user", "operator"])
    asked = ASKS[path] | {"model": "tiny", "keep_alive": keep}
    emptied = {"model": "tiny", "keep_alive": keep}

    refused = [
        await fleet.client.post(path, json=body, headers=bearer(user)) for body in (asked, emptied)
    ]
    told = list(fleet.registry.ensured)
    longer = await fleet.client.post(path, json=asked | {"keep_alive": "5m"}, headers=bearer(user))
    done = await fleet.client.post(path, json=asked, headers=bearer(operator))

    assert [(403, True)] * 2 == [(one.status_code, "keep_alive" in one.text) for one in refused]
    assert not told
    assert 200 == longer.status_code == done.status_code


async def test_what_a_key_has_used_tells_no_model_that_it_is_not_for(fleet):
    scoped = await fleet.key("scoped", scopes=pb.KeyScopes(models=["tin?"]))
    for model in ("other", "second", "zzz", "tiny"):
        await ask(fleet, "/v1/chat/completions", model, scoped)

    async with asyncio.timeout(SECONDS):
        rows: list[Any] = []
        while sum(row.requests for row in rows) < 4:
            await asyncio.sleep(0.05)
            rows = [row for report in fleet.registry.lessor.reported.values() for row in report]

    assert {"tiny", "unknown"} == {row.model for row in rows}


@pytest.mark.parametrize(
    ("models", "status"),
    [(["careful"], 200), (["gone"], 503), (["gone", "other"], 200), (["gone", "sec*"], 200)],
)
async def test_an_alias_falls_back_to_what_is_in_scope_or_belongs_to_its_name(
    fleet: KeyedFleet, models: list[str], status: int
) -> None:
    rules = registry.AliasRules(alias="careful", fallback="second")
    fleet.registry.add_model("gone", ["careful"], alias_rules=[rules])
    secret = await fleet.key("scoped", scopes=pb.KeyScopes(models=models))
    async with asyncio.timeout(SECONDS):
        while fleet.gateway.services.view.rules("careful") is None:
            await fleet.gateway.services.view.changed()
    fleet.registry.steps = [FleetError(Reason.NO_NEURONS, "Not here.")]

    answer = await ask(fleet, "/v1/chat/completions", "careful", secret)

    assert status == answer.status_code

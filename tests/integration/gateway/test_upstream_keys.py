"""Keys, their limits and scopes, and what is counted, where another server answers."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import UNSET

from cortex.v1 import key_service_pb2 as pb
from services.gateway.limits.settings import KeyLimits
from services.gateway.settings import ApiKey, AuthSettings
from services.gateway.telemetry.request_log import RequestLine
from tests.doubles.scripted_neuron import Script, text
from tests.integration.gateway.far import near, only, upstream
from tests.integration.gateway.fleet import Fleet, chat_body
from tests.integration.gateway.keyed import bearer, keyed_fleet


async def test_a_key_is_for_models_of_upstreams_too(bare: Fleet, far: Fleet) -> None:
    only(far).scripts = [Script((text("a"),))]
    keys = AuthSettings(
        keys=(ApiKey(name="ann", key="sk-ann", limits=KeyLimits(max_output_tokens=3)),)
    )
    await bare.start(keys, upstreams=(upstream(far),))
    bare.client.headers["authorization"] = "Bearer sk-ann"

    await bare.chat(model="big", max_tokens=50)

    assert 3 == only(far).requests[0].stop.max_tokens


async def test_scopes_hold_for_models_of_upstreams(far: Fleet) -> None:
    async with keyed_fleet(upstreams=(upstream(far),)) as fleet:
        mine = await fleet.key("mine", scopes=pb.KeyScopes(models=["big"]))
        other = await fleet.key("other", scopes=pb.KeyScopes(models=["tiny"]))

        def ask(path: str, secret: str) -> Any:
            body = chat_body(model="big")
            return fleet.client.post(path, json=body, headers=bearer(secret))

        assert 200 == (await ask("/v1/chat/completions", mine)).status_code
        for path in ("/v1/chat/completions", "/v1/messages/count_tokens"):
            assert 404 == (await ask(path, other)).status_code
        listed = (await fleet.client.get("/v1/models", headers=bearer(other))).json()
        assert "big" not in {one["id"] for one in listed["data"]}

    assert 1 == len(only(far).requests)


async def test_what_was_used_there_is_its_principals(bare: Fleet, far: Fleet) -> None:
    keys = AuthSettings(keys=(ApiKey(name="ann", key="sk-ann"),))
    await bare.start(keys, upstreams=(upstream(far),))

    await bare.client.post(
        "/v1/chat/completions", json=chat_body(model="big"), headers=bearer("sk-ann")
    )

    async with asyncio.timeout(20):
        while not (rows := [r for one in bare.registry.lessor.reported.values() for r in one]):
            await asyncio.sleep(0.05)
    (row,) = rows
    assert ("ann", "big", 1, 7, 2) == (
        row.principal,
        row.model,
        row.requests,
        row.prompt_tokens,
        row.completion_tokens,
    )


async def test_a_scope_bounds_what_every_model_is(far: Fleet) -> None:
    async with keyed_fleet(upstreams=(upstream(far, models={"*": "vast"}),)) as fleet:
        secret = await fleet.key("mine", scopes=pb.KeyScopes(models=["big*"]))

        def ask(model: str) -> Any:
            body = chat_body(model=model)
            return fleet.client.post("/v1/chat/completions", json=body, headers=bearer(secret))

        assert [200, 404] == [(await ask(o)).status_code for o in ("big-one", "other-one")]


async def test_log_and_metrics_say_which_upstream_has_served(
    bare: Fleet, far: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = await near(bare, far)
    written: list[RequestLine] = []
    log = SimpleNamespace(write=written.append, drain=lambda: None)
    monkeypatch.setattr(fleet.gateway.services.access_log, "_log", log)
    await fleet.add_neuron("here")

    await fleet.chat(model="big")
    await fleet.chat()

    counted = {"upstream": "far", "outcome": "completed"}
    assert 1 == fleet.metric("cortex_gateway_upstream_requests_total", **counted)
    assert 2 == fleet.metric("cortex_gateway_completion_tokens_total", model="big")
    assert 0 == fleet.metric("cortex_gateway_upstream_requests_open", upstream="far")
    there, here = written
    assert ("far", UNSET, UNSET) == (there.upstream, there.neuron, there.instance_id)
    assert (UNSET, "here") == (here.upstream, here.neuron)


async def test_a_budget_of_the_devices_time_is_not_used_up_there(bare: Fleet, far: Fleet) -> None:
    key = ApiKey(name="ann", key="sk-ann", limits=KeyLimits(gpu_seconds_per_day=2))
    await bare.start(AuthSettings(keys=(key,)), upstreams=(upstream(far),))
    bare.client.headers["authorization"] = "Bearer sk-ann"

    answers = [await bare.chat(model="big") for _ in range(5)]

    assert [200] * 5 == [one.status_code for one in answers]

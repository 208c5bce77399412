"""Ids, keys, bad requests, health, metrics."""

from __future__ import annotations

import asyncio
import hashlib

import pytest

from cortex.v1 import generation_pb2 as generation
from services.gateway.settings import ApiKey, AuthSettings
from tests.doubles.scripted_neuron import Script, reasoning, text, tool_call
from tests.integration.gateway.fleet import SECONDS, Fleet, chat_body

KEYS = AuthSettings(
    keys=(
        ApiKey("alice", key="sk-alice"),
        ApiKey("bob", sha256=hashlib.sha256(b"sk-bob").hexdigest()),
    )
)


async def test_every_answer_carries_its_id(fleet: Fleet) -> None:
    await fleet.add_neuron()
    answers = [
        await fleet.chat(),
        await fleet.chat(stream=True),
        await fleet.chat(model="nonesuch"),
        await fleet.client.get("/nowhere"),
        await fleet.client.get("/readyz"),
    ]

    ids = {answer.headers["x-request-id"] for answer in answers}

    assert len(ids) == len(answers)
    assert all(a.headers["request-id"] == a.headers["x-request-id"] for a in answers)


async def test_a_clients_own_id_is_kept_and_reaches_the_neuron(fleet: Fleet) -> None:
    neuron = await fleet.add_neuron()

    response = await fleet.client.post(
        "/v1/chat/completions", json=chat_body(), headers={"x-request-id": "mine-1"}
    )

    assert response.headers["x-request-id"] == "mine-1"
    assert neuron.requests[0].request_id == "mine-1"


@pytest.mark.parametrize(
    ("headers", "principal"),
    [
        ({"authorization": "Bearer sk-alice"}, "alice"),
        ({"authorization": "bearer sk-alice"}, "alice"),
        ({"x-api-key": "sk-bob"}, "bob"),
    ],
)
async def test_a_known_key_names_its_principal(
    bare: Fleet, headers: dict[str, str], principal: str
) -> None:
    await bare.start(KEYS)
    neuron = await bare.add_neuron()

    response = await bare.client.post("/v1/chat/completions", json=chat_body(), headers=headers)

    assert response.status_code == 200
    assert neuron.requests[0].principal == principal


async def test_a_header_names_the_class_of_a_request(fleet: Fleet) -> None:
    neuron = await fleet.add_neuron()

    for named in ("batch", "urgent"):
        response = await fleet.client.post(
            "/v1/chat/completions", json=chat_body(), headers={"x-cortex-class": named}
        )

    assert [one.work_class for one in neuron.requests] == [generation.WORK_CLASS_BATCH]
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "x-cortex-class"


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer sk-x"}, {"x-api-key": ""}])
async def test_without_a_known_key_there_is_no_answer(bare: Fleet, headers: dict[str, str]) -> None:
    await bare.start(KEYS)
    neuron = await bare.add_neuron()

    response = await bare.client.post("/v1/chat/completions", json=chat_body(), headers=headers)

    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert not neuron.requests


async def test_an_open_gateway_ignores_keys_that_it_does_not_know(fleet: Fleet) -> None:
    neuron = await fleet.add_neuron()

    response = await fleet.client.post(
        "/v1/chat/completions", json=chat_body(), headers={"authorization": "Bearer sk-none"}
    )

    assert response.status_code == 200
    assert neuron.requests[0].principal == ""


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nowhere", 404),
        ("GET", "/v1/chat/completions", 405),
        ("GET", "/v1/messages", 405),
        ("POST", "/v1/chat/completions/more", 404),
    ],
)
async def test_what_the_router_refuses_comes_in_an_envelope(
    fleet: Fleet, method: str, path: str, status: int
) -> None:
    response = await fleet.client.request(method, path)

    assert response.status_code == status
    envelope = response.json()
    assert envelope["error"]["message"]
    assert (envelope.get("type") == "error") is path.startswith("/v1/messages")


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"[]", {}, 400),
        (b'{"model": "tiny", "messages": "\xff"}', {}, 400),
        (b"--x", {"content-type": "multipart/form-data; boundary=x"}, 415),
        (b"\x1f\x8b", {"content-encoding": "gzip", "content-type": "application/json"}, 415),
    ],
    ids=["truncated", "no object", "broken utf-8", "multipart", "gzip"],
)
async def test_bodies_that_cannot_be_read_are_refused(
    fleet: Fleet, content: bytes, headers: dict[str, str], status: int
) -> None:
    response = await fleet.client.post("/v1/chat/completions", content=content, headers=headers)

    assert response.status_code == status
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("codec", ["fast", "stock"])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_a_body_over_the_limit_is_refused_in_the_dialects_envelope(
    bare: Fleet, codec: str, path: str
) -> None:
    await bare.start(max_body_bytes=1000, http1_codec=codec)

    response = await bare.client.post(path, content=b" " * 2000)

    assert response.status_code == 413
    assert response.json()["error"]["type"] in {"invalid_request_error", "request_too_large"}


async def test_health_and_readiness(bare: Fleet) -> None:
    """Without a registry the gateway lives, but wants no work."""
    await bare.registry.start()
    await bare.registry.stop()
    waiting = asyncio.create_task(bare.start_gateway())
    while not hasattr(bare, "client"):
        await asyncio.sleep(0.01)

    assert (await bare.client.get("/healthz")).status_code == 200
    unready = await bare.client.get("/readyz")
    assert unready.status_code == 503
    assert "registry" in unready.json()["reason"]
    early = asyncio.create_task(bare.chat())

    bare.registry.add_model("tiny")
    await bare.registry.start(bare.registry.address)
    await waiting
    async with asyncio.timeout(SECONDS):  # it has heard of the fleet, and hears of keys
        while (await bare.client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.01)
    assert (await early).json()["error"]["code"] == "no_room"  # and not that nobody was reached


@pytest.mark.parametrize("headers", [{}, {"anthropic-version": "2023-06-01"}])
async def test_models_are_listed_for_whoever_has_a_key(
    bare: Fleet, headers: dict[str, str]
) -> None:
    await bare.start(KEYS)

    listed = [
        await bare.client.get("/v1/models", headers={**headers, **key})
        for key in ({"authorization": "Bearer sk-alice"}, {}, {"authorization": "Bearer sk-eve"})
    ]

    assert [answer.status_code for answer in listed] == [200, 401, 401]
    assert "tiny" in {one["id"] for one in listed[0].json()["data"]}
    assert all(answer.headers["www-authenticate"] == "Bearer" for answer in listed[1:])
    assert all(answer.json()["error"]["message"] for answer in listed[1:])


async def test_an_open_gateway_lists_models_whatever_the_key(fleet: Fleet) -> None:
    for headers in ({}, {"authorization": "Bearer sk-none"}, {"x-api-key": "sk-none"}):
        assert (await fleet.client.get("/v1/models", headers=headers)).status_code == 200


async def test_metrics_tell_tokens_times_and_errors(fleet: Fleet) -> None:
    events = [reasoning("hm"), text("one"), text("two")]
    await fleet.add_neuron("n1", Script(events))
    await fleet.stream_text()
    await fleet.chat()
    await fleet.chat(model="nonesuch")
    by = {"model": "tiny", "dialect": "openai_chat"}

    ended = {"status": "200", "outcome": "completed"}
    assert fleet.metric("cortex_gateway_requests_total", **by, **ended) == 2
    assert fleet.metric("cortex_gateway_completion_tokens_total", model="tiny") == 6
    assert fleet.metric("cortex_gateway_prompt_tokens_total", model="tiny") == 14
    assert fleet.metric("cortex_gateway_cached_prompt_tokens_total", model="tiny") == 6
    assert fleet.metric("cortex_gateway_time_to_first_token_seconds_count", model="tiny") == 2
    assert (
        fleet.metric("cortex_gateway_time_to_first_visible_token_seconds_count", model="tiny") == 2
    )
    assert fleet.metric("cortex_gateway_tokens_per_second_count", model="tiny") == 2
    assert fleet.metric("cortex_gateway_errors_total", reason="MODEL_UNKNOWN") == 1


async def test_a_stream_that_breaks_behind_its_head_counts_as_failed(fleet: Fleet) -> None:
    neuron = await fleet.add_neuron("n1", Script(fail_after=1), Script(gate=asyncio.Event()))
    by = {"model": "tiny", "dialect": "openai_chat"}

    await fleet.stream_text()
    async with fleet.streamed() as response:
        await anext(response.aiter_lines())
    await neuron.until(lambda: len(neuron.cancelled) == 1)

    total = "cortex_gateway_requests_total"
    left = {**by, "status": "499", "outcome": "cancelled"}
    async with asyncio.timeout(SECONDS):
        while fleet.sample(total, **left) is None:
            await asyncio.sleep(0.01)
    assert fleet.metric(total, **by, status="200", outcome="failed") == 1
    assert fleet.metric(total, **left) == 1
    assert (
        f'{total}{{dialect="openai_chat",model="tiny",outcome="completed"' not in fleet.exposition()
    )


async def test_readiness_is_a_metric(fleet: Fleet) -> None:
    async def told(value: float) -> None:
        async with asyncio.timeout(SECONDS):
            while fleet.metric("cortex_gateway_ready") != value:
                await asyncio.sleep(0.05)

    await told(1)
    fleet.gateway.readiness.drain()
    await told(0)


async def test_series_begin_with_the_first_request_of_a_model_in_a_dialect(fleet: Fleet) -> None:
    await fleet.add_neuron()
    assert 'dialect="' not in fleet.exposition()

    await fleet.chat()

    exposed = fleet.exposition()
    assert "# TYPE cortex_gateway_time_to_first_token_seconds histogram" in exposed
    assert 'time_to_first_token_seconds_bucket{le="0.025",model="tiny"' in exposed
    assert 'dialect="anthropic_messages"' not in exposed
    assert fleet.metric("cortex_gateway_errors_total", reason="NO_ROOM") == 0
    assert 'outcome="failed"' not in exposed


async def test_several_choices_run_at_once_and_come_in_order(fleet: Fleet) -> None:
    neuron = await fleet.add_neuron(
        "n1", Script([text("a")], gap=0.05), Script([text("b")]), Script([text("c")])
    )

    whole = (await fleet.chat(n=3)).json()

    assert [choice["message"]["content"] for choice in whole["choices"]] == ["a", "b", "c"]
    assert len(neuron.requests) == 3


async def test_one_failing_choice_stops_the_others(fleet: Fleet) -> None:
    neuron = await fleet.add_neuron(
        "n1", Script([text("a"), text("b")], gate=asyncio.Event()), Script(fail_after=1)
    )

    body = await fleet.stream_text(n=2)

    assert '"error"' in body
    await neuron.until(lambda: len(neuron.cancelled) == 1)


async def test_a_tool_call_is_collected_from_its_pieces(fleet: Fleet) -> None:
    pieces = [
        tool_call(0, "", call_id="c1", name="look"),
        tool_call(0, '{"a"'),
        tool_call(0, ":1}"),
    ]
    await fleet.add_neuron("n1", Script([text("Let me see."), *pieces]))

    message = (await fleet.chat()).json()["choices"][0]["message"]

    assert message["content"] == "Let me see."
    assert message["tool_calls"][0]["function"] == {"name": "look", "arguments": '{"a":1}'}

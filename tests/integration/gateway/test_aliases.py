"""Aliases with rules: what reaches the neuron, and who answers where the model cannot."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import registry_service_pb2 as registry
from services.backplane.errors import FleetError, Reason
from tests.doubles.scripted_neuron import Script
from tests.integration.gateway.fleet import Fleet, contents


def rules(**more) -> registry.AliasRules:
    values = registry.RequestValues(max_tokens=9)
    values.sampling.temperature = 0.25
    return registry.AliasRules(
        alias="careful", system="Be brief.", forced=values, stripped=["seed"], **more
    )


def add(fleet: Fleet, **more) -> None:
    fleet.registry.add_model("tiny2", ["careful"], alias_rules=[rules(**more)])


async def known(fleet: Fleet) -> None:
    while fleet.gateway.services.view.rules("careful") is None:
        await fleet.gateway.services.view.changed()


async def test_the_requests_of_every_dialect_follow_the_rules_of_the_alias(fleet: Fleet) -> None:
    add(fleet)
    neuron = await fleet.add_neuron("n", models=("tiny2",))
    await known(fleet)
    base = f"http://{fleet.gateway.address}"
    turn: Any = {"role": "user", "content": "Hi"}

    async with openai.AsyncOpenAI(base_url=f"{base}/v1", api_key="k") as client:
        answer = await client.chat.completions.create(
            model="careful", messages=[turn], seed=5, max_tokens=500
        )
    async with anthropic.AsyncAnthropic(base_url=base, api_key="k") as client:
        await client.messages.create(
            model="careful", messages=[turn], system="Mine.", max_tokens=500
        )
    await fleet.client.post(
        "/api/chat", json={"model": "careful", "messages": [turn], "stream": False}
    )
    await fleet.chat(model="tiny2", seed=5)

    assert "careful" == answer.model
    *ruled, plain = neuron.requests
    for request in ruled:
        assert 9 == request.stop.max_tokens
        assert 0.25 == request.sampling.temperature
        assert not request.sampling.HasField("seed")
        first = request.chat.messages[0]
        assert conversation.ROLE_SYSTEM == first.role
        assert first.parts[0].text.startswith("Be brief.")
    assert 3 == len(ruled)
    assert (5, False) == (plain.sampling.seed, plain.stop.max_tokens == 9)
    assert conversation.ROLE_USER == plain.chat.messages[0].role


@pytest.mark.parametrize("reason", [Reason.NO_NEURONS, Reason.NO_ROOM, Reason.LOAD_FAILED])
@pytest.mark.parametrize("stream", [True, False])
async def test_another_model_answers_where_this_one_cannot_be_served(
    fleet: Fleet, reason: Reason, stream: bool
) -> None:
    add(fleet, fallback="tiny-alias")
    neuron = await fleet.add_neuron("n")
    await known(fleet)
    fleet.registry.steps = [FleetError(reason, "Not here.")]

    if stream:
        text = "".join(contents(await fleet.stream_text(model="careful")))
    else:
        answer = (await fleet.chat(model="careful")).json()
        text = answer["choices"][0]["message"]["content"]
        assert "careful" == answer["model"]

    assert "Hello world" == text
    (request,) = neuron.requests
    assert ("tiny", 9) == (request.model, request.stop.max_tokens)


async def test_nobody_falls_back_for_a_mistake_of_the_client_or_within_an_answer(
    fleet: Fleet,
) -> None:
    add(fleet, fallback="tiny")
    other = await fleet.add_neuron("o")
    bad = FleetError(Reason.CONTEXT_TOO_LONG, "Too long.")
    own = await fleet.add_neuron(
        "n",
        Script(refuse=bad),
        *[Script(fail_after=1) for _ in range(6)],
        models=("tiny2",),
    )
    await known(fleet)

    refused = await fleet.chat(model="careful")
    broken = await fleet.stream_text(model="careful")

    assert 400 == refused.status_code
    assert "error" in broken
    assert [] == other.requests
    assert len(own.requests) > 1


@pytest.mark.parametrize(
    ("other", "told"),
    [(Reason.CONTEXT_TOO_LONG, "no_room"), (Reason.BAD_REQUEST, None)],
)
async def test_what_the_other_model_cannot_do_is_not_told_as_the_clients_mistake(
    fleet: Fleet, other: Reason, told: str | None
) -> None:
    add(fleet, fallback="tiny")
    await fleet.add_neuron("n", Script(refuse=FleetError(other, "Not this one.")))
    await known(fleet)
    fleet.registry.steps = [FleetError(Reason.NO_ROOM, "Not here.")]

    refused = await fleet.chat(model="careful")

    assert (503 if told else 400) == refused.status_code
    assert told == refused.json()["error"]["code"]

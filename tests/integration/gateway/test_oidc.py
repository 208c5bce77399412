"""Tokens of an identity provider at the gateway: let in like keys, for what their group is for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import openai
import pytest
from wsproto.events import AcceptConnection, RejectConnection

from cortex.v1 import key_service_pb2 as pb
from cortex.v1 import limits_pb2
from services.gateway.settings import AuthSettings, OidcSettings
from tests.doubles.identity_provider import AUDIENCE, IdentityProvider, identity_provider
from tests.doubles.registry_neuron import eventually
from tests.doubles.scripted_neuron import Script, text
from tests.integration.gateway.fleet import chat_body
from tests.integration.gateway.keyed import KeyedFleet, bearer, keyed_fleet
from tests.integration.gateway.responses_socket import connected

TURN: Any = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    with identity_provider() as one:
        yield one


@pytest.fixture
async def fleet(provider: IdentityProvider) -> AsyncIterator[KeyedFleet]:
    oidc = OidcSettings(
        issuer=provider.url, audience=AUDIENCE, mapping={"admins": "ops", "staff": "team"}
    )
    async with keyed_fleet(AuthSettings(oidc=oidc)) as started:
        await started.keys.put_group(
            pb.KeyGroup(
                name="team",
                scopes=pb.KeyScopes(models=["tiny"]),
                limits=limits_pb2.Limits(max_output_tokens=7),
            )
        )
        await started.keys.put_group(pb.KeyGroup(name="ops", roles=["operator"]))
        store = started.gateway.services.auth.store
        await eventually(lambda: store.group("ops") is not None)
        yield started


async def status(fleet: KeyedFleet, token: str, model: str = "tiny") -> int:
    body = chat_body(model=model)
    answer = await fleet.client.post("/v1/chat/completions", json=body, headers=bearer(token))
    return answer.status_code


async def test_a_token_is_let_in_for_what_its_group_is_for(fleet, provider):
    token = provider.token()

    assert [200, 404] == [await status(fleet, token, model) for model in ("tiny", "other")]
    asked = fleet.neurons[0].requests[-1]
    assert ("oidc:ann", 7) == (asked.principal, asked.stop.max_tokens)
    assert 401 == await status(fleet, provider.token(aud="other"))
    assert 403 == await status(fleet, provider.token(groups=["none"]))
    assert 401 == (await fleet.client.get("/v1/models")).status_code


async def test_the_provider_is_asked_once_for_many_requests(fleet, provider):
    tokens = [provider.token(sub=f"u{number}") for number in range(5)]

    statuses = await asyncio.gather(*(status(fleet, token) for token in tokens * 4))

    assert {200} == set(statuses)
    assert 2 == len(provider.asked)


async def test_a_tokens_group_may_look_and_operate_by_its_roles(fleet, provider):
    staff, admin = provider.token(), provider.token(groups=["admins"])

    looked = [
        (await fleet.client.get("/ui/requests", headers=bearer(one))).status_code
        for one in (staff, admin)
    ]

    assert [403, 200] == looked
    assert 403 == await status(fleet, admin)  # it operates, and asks no models


async def test_a_token_ends_when_it_says(fleet, provider):
    token = provider.token(exp=time.time() - 28)  # within what clocks may be apart

    assert 401 == await status(fleet, token)


async def test_a_group_that_goes_takes_its_tokens_with_it(fleet, provider):
    token = provider.token()
    assert 200 == await status(fleet, token)

    await fleet.keys.delete_group("team")

    async def is_refused() -> bool:
        return await status(fleet, token) == 403

    await eventually(is_refused)


async def test_a_websocket_is_opened_by_a_token(fleet, provider):
    good = (b"authorization", f"Bearer {provider.token()}".encode())
    bad = (b"authorization", f"Bearer {provider.token(exp=1)}".encode())
    async with connected(fleet.gateway.address) as socket:
        assert isinstance(await socket.open(fleet.gateway.address, bad), RejectConnection)
    async with connected(fleet.gateway.address) as socket:
        assert isinstance(await socket.open(fleet.gateway.address, good), AcceptConnection)
        told = await socket.turn(input="Hi")

    assert "response.completed" == told[-1]["type"]


async def test_keys_of_the_store_work_beside_tokens_and_the_sdk_sends_either(fleet, provider):
    secret = await fleet.key("bob")
    base = f"http://{fleet.gateway.address}/v1"
    fleet.neurons[0].scripts = [Script([text("Hello")])]
    for given in (secret, provider.token()):
        async with openai.AsyncOpenAI(base_url=base, api_key=given, max_retries=0) as client:
            answer = await client.chat.completions.create(model="tiny", messages=TURN)
        assert "Hello" == answer.choices[0].message.content


async def test_wrong_tokens_are_slowed_down_and_good_ones_are_not(fleet, provider):
    good = provider.token()
    assert 200 == await status(fleet, good)

    told = [await status(fleet, provider.token(exp=number)) for number in range(1, 13)]

    assert (401, 429) == (told[0], told[-1])
    assert 200 == await status(fleet, good)

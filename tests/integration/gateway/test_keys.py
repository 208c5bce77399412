"""Keys of the store at the gateway: who is let in, for how long, and what ends with a key."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from cortex.v1 import key_service_pb2 as pb
from services.backplane import protobuf_time
from services.backplane.security import api_key
from services.gateway.auth import key_watch
from services.gateway.settings import ApiKey, AuthSettings
from tests.doubles.registry_neuron import eventually
from tests.doubles.scripted_neuron import Script, text
from tests.integration.gateway.fleet import chat_body, lines
from tests.integration.gateway.keyed import KeyedFleet, bearer, keyed_fleet


@pytest.fixture
async def fleet() -> AsyncIterator[KeyedFleet]:
    async with keyed_fleet() as started:
        yield started


async def status(fleet: KeyedFleet, headers: dict[str, str]) -> int:
    response = await fleet.client.post("/v1/chat/completions", json=chat_body(), headers=headers)
    return response.status_code


async def test_the_first_key_closes_the_gateway_and_revoking_it_does_not_open_it(fleet):
    assert 200 == await status(fleet, {})

    secret = await fleet.key("ann")

    assert 401 == await status(fleet, {})
    assert 200 == await status(fleet, bearer(secret))
    await fleet.keys.revoke("ann")
    await fleet.followed()
    assert 401 == await status(fleet, {})
    assert 401 == await status(fleet, bearer(secret))


@pytest.mark.parametrize("header", ["x-api-key", "api-key"])
async def test_a_key_comes_in_the_headers_of_every_sdk(fleet, header):
    secret = await fleet.key("ann", principal="Ann")

    assert 200 == await status(fleet, {header: secret})
    assert 401 == await status(fleet, {header: secret + "x"})
    assert "Ann" == fleet.neurons[0].requests[-1].principal


async def test_keys_of_the_file_and_of_the_store_work_side_by_side():
    async with keyed_fleet(AuthSettings(keys=(ApiKey("bob", key="sk-b"),))) as fleet:
        secret = await fleet.key("ann")

        assert 200 == await status(fleet, bearer("sk-b"))
        assert 200 == await status(fleet, bearer(secret))
        assert 401 == await status(fleet, bearer("sk-c"))


async def test_an_expired_key_is_refused_and_what_it_began_goes_on(fleet):
    gate = asyncio.Event()
    fleet.neurons[0].scripts = [Script([text("a"), text("b")], gate=gate)]
    secret = await fleet.key("ann", expires_at=protobuf_time.timestamp(time.time() + 0.5))
    async with fleet.client.stream(
        "POST", "/v1/chat/completions", json=chat_body(stream=True), headers=bearer(secret)
    ) as response:
        seen = lines(response)
        await anext(seen)

        async def is_refused() -> bool:
            return await status(fleet, bearer(secret)) == 401

        fleet.neurons[0].scripts = [Script()]
        await eventually(is_refused)
        # a snapshot without the key, as after a restart of the registry, is no reason either
        await fleet.key("bob")
        gate.set()
        rest = [line async for line in seen]

    assert "data: [DONE]" == rest[-1]


async def test_a_revoked_key_ends_its_streams_and_no_others(fleet):
    gates = [asyncio.Event(), asyncio.Event()]
    fleet.neurons[0].scripts = [Script([text("a"), text("b")], gate=gate) for gate in gates]
    mine, other = await fleet.key("mine"), await fleet.key("other")

    async def stream(secret: str) -> str:
        async with fleet.client.stream(
            "POST", "/v1/chat/completions", json=chat_body(stream=True), headers=bearer(secret)
        ) as response:
            return (await response.aread()).decode()

    running = asyncio.gather(stream(mine), stream(other))
    await eventually(lambda: len(fleet.neurons[0].requests) == 2)
    await asyncio.sleep(0.2)  # both have begun to answer
    await fleet.keys.revoke("mine")
    await fleet.followed()
    await eventually(lambda: len(fleet.gateway.services.ticker) == 1)
    for gate in gates:
        gate.set()
    ended, whole = await running

    assert "invalid_api_key" in ended
    assert "[DONE]" in whole
    assert "invalid_api_key" not in whole


async def test_rotating_leaves_the_old_secret_its_time(fleet):
    old = await fleet.key("ann")
    new, _ = await fleet.keys.rotate("ann", 0.5)
    await fleet.followed()

    assert [200, 200] == [await status(fleet, bearer(one)) for one in (old, new)]

    async def is_over() -> bool:
        return await status(fleet, bearer(old)) == 401

    await eventually(is_over)
    assert 200 == await status(fleet, bearer(new))


async def test_keys_are_honoured_while_the_registry_is_away_and_followed_when_it_is_back(fleet):
    secret = await fleet.key("ann")
    address = fleet.registry.address
    await fleet.registry.stop()

    assert 200 == await status(fleet, bearer(secret))
    await fleet.keys.revoke("ann")
    await fleet.registry.start(address)

    async def is_refused() -> bool:
        return await status(fleet, bearer(secret)) == 401

    await eventually(is_refused)


async def test_keys_are_believed_no_longer_than_the_settings_say():
    async with keyed_fleet(AuthSettings(keys_max_age=0.3)) as fleet:
        secret = await fleet.key("ann")
        await fleet.registry.stop()

        async def is_unsure() -> bool:
            return await status(fleet, bearer(secret)) == 503

        await eventually(is_unsure)
        assert 401 == await status(fleet, {})  # it has not opened


async def test_a_gateway_that_has_reached_no_registry_says_so_instead_of_refusing():
    fleet = KeyedFleet()
    fleet.registry.address = "127.0.0.1:1"
    await fleet.start_gateway(AuthSettings(required=True), is_early=True)
    try:
        unknown = api_key.new_key(api_key.new_id())

        assert 503 == await status(fleet, bearer(unknown))
        assert 401 == await status(fleet, bearer("sk-something"))
    finally:
        await fleet.stop()


async def test_a_restarted_registry_with_another_store_takes_keys_back(fleet):
    secret = await fleet.key("ann")
    address, term = fleet.registry.address, fleet.registry.term
    await fleet.registry.stop()
    assert term is not None
    term.incarnation_id = "another"
    del term.keys._keys[next(iter(term.keys._keys))]
    await fleet.registry.start(address)

    async def is_refused() -> bool:
        return await status(fleet, bearer(secret)) == 401

    await eventually(is_refused)
    assert 401 == await status(fleet, {})  # a store that was lost opens nothing


async def test_the_registry_is_told_which_keys_were_used(fleet):
    used, unused = await fleet.key("used"), await fleet.key("unused")
    assert 200 == await status(fleet, bearer(used))
    assert unused

    await fleet.gateway._key_watch.report()

    assert fleet.keys.key("used").HasField("last_used_at")
    assert not fleet.keys.key("unused").HasField("last_used_at")
    assert key_watch.REPORT_SECONDS <= 60


async def test_wrong_keys_are_slowed_down_and_right_ones_are_not():
    async with keyed_fleet(AuthSettings(keys=(ApiKey("bob", key="sk-b"),))) as fleet:
        secret = await fleet.key("ann")
        assert 200 == await status(fleet, bearer("sk-b"))

        told = [await status(fleet, bearer(f"guess-{number}")) for number in range(12)]

        assert 401 == told[0]
        assert 429 == told[-1]
        assert 200 == await status(fleet, bearer(secret))
        assert 200 == await status(fleet, bearer("sk-b"))


async def test_roles_say_who_asks_and_who_looks(fleet):
    user = await fleet.key("user")
    looks = await fleet.key("looks", roles=["metrics"])
    operates = await fleet.key("operates", roles=["operator", "user"])

    async def console(secret: str) -> int:
        return (await fleet.client.get("/ui/requests", headers=bearer(secret))).status_code

    assert [403, 200, 200] == [await console(one) for one in (user, looks, operates)]
    assert [200, 403, 200] == [await status(fleet, bearer(one)) for one in (user, looks, operates)]
    refused = await fleet.client.post("/ui/pin", json={"model": "a"}, headers=bearer(looks))
    assert 403 == refused.status_code
    assert "operator" in refused.json()["error"]["message"]


async def test_a_group_changes_what_its_keys_may(fleet):
    await fleet.keys.put_group(pb.KeyGroup(name="team"))
    secret = await fleet.key("ann", group="team")
    assert 200 == await status(fleet, bearer(secret))

    await fleet.keys.put_group(
        pb.KeyGroup(name="team", scopes=pb.KeyScopes(dialects=["anthropic*"]))
    )
    await fleet.followed()

    assert 403 == await status(fleet, bearer(secret))


async def test_a_gateway_is_ready_when_it_knows_the_keys_and_not_before(fleet):
    """Behind a load balancer it would let in who has none, or refuse who has one."""
    secret = await fleet.key("ann")
    store = fleet.gateway.services.auth.store
    store.is_settled = False

    early = await fleet.client.get("/readyz")
    await fleet.key("bob")
    ready = await fleet.client.get("/readyz")

    assert (503, 200) == (early.status_code, ready.status_code)
    assert "keys" in early.json()["reason"]
    assert 200 == await status(fleet, bearer(secret))


async def test_a_registry_without_keys_keeps_no_gateway_from_being_ready():
    fleet = KeyedFleet()
    await fleet.start()  # its registry has no KeyService, as before there were keys

    async def is_ready() -> bool:
        return (await fleet.client.get("/readyz")).status_code == 200

    try:
        await eventually(is_ready)
    finally:
        await fleet.stop()

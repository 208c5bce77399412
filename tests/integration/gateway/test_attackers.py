"""Attacker by HTTP path: who has no good key gets nothing, however he spells it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator

import pytest

from services.backplane import protobuf_time
from tests.doubles.registry_neuron import eventually
from tests.integration.gateway.keyed import KeyedFleet, bearer, keyed_fleet

# What everybody may read: whether it lives, what there is, and the console's page.
OPEN = {"/", "/healthz", "/livez", "/health", "/readyz", "/openapi.json", "/ui", "/ui/"}
PAGE = "/ui/{path}"
REFUSED = {401, 404, 405, 429}
SPELLERS = {"without a key", "with a revoked key"}


@pytest.fixture
async def fleet() -> AsyncIterator[KeyedFleet]:
    async with keyed_fleet() as started:
        yield started


def spelled(path: str) -> Iterator[str]:
    """Ways in which a path is written so that a check of its letters may miss it."""
    first, rest = path[1], path[2:]
    yield path
    yield f"{path}/"
    yield f"/{path}"
    yield path.replace("/", "//")
    yield f"/%{ord(first):02x}{rest}"
    yield f"/%{ord(first):02X}{rest}?x=1#y"
    yield f"/.{path}"
    yield f"/x/..{path}"
    yield f"/{first.upper()}{rest}"
    yield f"{path};a=b"
    yield f"{path}%00"
    yield f"{path}%20"


async def endpoints(fleet: KeyedFleet) -> list[tuple[str, str]]:
    described = (await fleet.client.get("/openapi.json")).json()["paths"]
    return [
        (method.upper(), path.replace("{", "").replace("}", ""))
        for path, methods in described.items()
        for method in methods
        if path not in OPEN and path != PAGE
    ]


async def attackers(fleet: KeyedFleet) -> dict[str, dict[str, str]]:
    """Headers of those who have no key that is good."""
    soon = time.time() + 0.3
    expired = await fleet.key("expired", expires_at=protobuf_time.timestamp(soon))
    revoked = await fleet.key("revoked")
    await fleet.keys.revoke("revoked")
    await fleet.followed()
    await eventually(lambda: time.time() > soon)
    return {
        "without a key": {},
        "with an expired key": bearer(expired),
        "with a revoked key": bearer(revoked),
        "with an empty key": {"authorization": "Bearer"},
        "with another scheme": {"authorization": f"Basic {revoked}"},
    }


async def test_nobody_without_a_good_key_gets_anything_however_a_path_is_spelled(fleet):
    found: dict[tuple[str, str, str], int] = {}
    served = await endpoints(fleet)
    for who, headers in (await attackers(fleet)).items():
        for method, path in served:
            for other in spelled(path) if who in SPELLERS else (path,):
                url = f"http://{fleet.gateway.address}{other}"
                answer = await fleet.client.request(method, url, json={}, headers=headers)
                found[who, method, other] = answer.status_code
                if other == path:  # 429: who guesses is slowed down
                    assert answer.status_code in {401, 429}, (who, method, path)

    assert len(served) > 30
    assert {key: status for key, status in found.items() if status not in REFUSED} == {}
    assert not fleet.neurons[0].requests


async def test_a_response_of_another_principal_is_as_one_that_was_never_made(fleet):
    ann, bob = bearer(await fleet.key("ann")), bearer(await fleet.key("bob"))
    body = {"model": "tiny", "input": "a secret", "store": True}
    made = await fleet.client.post("/v1/responses", json=body, headers=ann)
    assert made.status_code == 200
    real, never = made.json()["id"], "resp_" + "0" * 40

    async def told(identity: str, method: str, path: str, **more: object) -> tuple[int, str]:
        answer = await fleet.client.request(
            method, path.format(identity), headers=bob, **{"json": {}, **more}
        )
        return answer.status_code, answer.text.replace(identity, "ID")

    going_on = {"json": {"model": "tiny", "input": "and?"}}
    for method, path in (
        ("GET", "/v1/responses/{}"),
        ("GET", "/v1/responses/{}/input_items"),
        ("POST", "/v1/responses/{}/cancel"),
        ("DELETE", "/v1/responses/{}"),
    ):
        status, words = await told(real, method, path)
        assert (status, words) == await told(never, method, path)
        assert status in {400, 404}
        assert "secret" not in words
    for identity in (real, never):
        going_on["json"]["previous_response_id"] = identity
        assert (await told(identity, "POST", "/v1/responses", **going_on))[0] in {400, 404}

    assert (await fleet.client.get(f"/v1/responses/{real}", headers=ann)).status_code == 200

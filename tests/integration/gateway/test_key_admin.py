"""`/admin/keys` of a real gateway before a real registry: who may, and that it is so."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest

from cortex.v1 import key_service_pb2 as pb
from services.gateway.settings import ApiKey, AuthSettings
from tests.doubles.registry_neuron import eventually
from tests.doubles.registry_stand_ins import document, running_fleet
from tests.integration.gateway.fleet import Fleet

ADMIN = {"authorization": "Bearer sk-admin"}
KEYS = (
    ApiKey("root", key="sk-admin", console="admin"),
    ApiKey("op", key="sk-op", console="operate"),
)


@contextlib.asynccontextmanager
async def administered(tmp_path: Any, auth: AuthSettings) -> AsyncGenerator[Any]:
    async with running_fleet(document(tmp_path)) as registry:
        fleet = Fleet()
        fleet.registry.address = registry.address
        await fleet.start_gateway(auth)
        try:
            yield fleet, registry
        finally:
            await fleet.stop()


@pytest.fixture
async def both(tmp_path: Any) -> AsyncGenerator[Any]:
    async with administered(tmp_path, AuthSettings(keys=KEYS)) as started:
        yield started


async def models(client: httpx.AsyncClient, secret: str) -> int:
    headers = {"authorization": f"Bearer {secret}"}
    return (await client.get("/v1/models", headers=headers)).status_code


async def test_a_key_from_making_it_to_taking_it_back(both):
    client, registry = both[0].client, both[1]
    body = {"name": "ann", "scopes": {"models": ["a*"]}, "limits": {"tokens_per_day": 10}}
    made = await client.post("/admin/keys", json=body, headers=ADMIN)
    secret, key = made.json()["secret"], made.json()["key"]

    assert 201 == made.status_code
    assert made.headers["cache-control"] == "no-store"

    async def is_let_in() -> bool:
        return await models(client, secret) == 200

    await eventually(is_let_in)
    shown = (await client.get(f"/admin/keys/{key['id']}", headers=ADMIN)).json()["key"]
    assert (["a*"], 10) == (shown["scopes"]["models"], shown["limits"]["tokens_per_day"])
    rotated = await client.post("/admin/keys/ann/rotate", json={"overlap": "3600s"}, headers=ADMIN)
    plain = await client.post("/admin/keys/ann/rotate", headers=ADMIN)
    assert [200, 200] == [rotated.status_code, plain.status_code]
    listed = (await client.get("/admin/keys?page_size=5", headers=ADMIN)).json()
    assert [key["id"]] == [one["id"] for one in listed["keys"]]
    assert [("root", "admin"), ("op", "operate")] == [
        (one["name"], one["console"]) for one in listed["static"]
    ]
    revoked = await client.delete("/admin/keys/ann", headers=ADMIN)
    assert revoked.json()["key"]["revoked_at"]
    assert [] == (await client.get("/admin/keys", headers=ADMIN)).json()["keys"]
    everything = await client.get("/admin/keys?include_ended=true", headers=ADMIN)
    assert [key["id"]] == [one["id"] for one in everything.json()["keys"]]
    assert (await registry.keys.GetKey(pb.GetKeyRequest(key="ann"))).key.HasField("revoked_at")


async def test_groups_are_put_listed_and_deleted(both):
    client = both[0].client
    put = await client.put(
        "/admin/groups/team", json={"scopes": {"dialects": ["ollama"]}}, headers=ADMIN
    )
    listed = await client.get("/admin/groups", headers=ADMIN)
    deleted = await client.delete("/admin/groups/team", headers=ADMIN)

    assert "team" == put.json()["group"]["name"]
    assert ["ollama"] == listed.json()["groups"][0]["scopes"]["dialects"]
    assert {"name": "team", "deleted": True} == deleted.json()
    assert 404 == (await client.delete("/admin/groups/team", headers=ADMIN)).status_code


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/admin/keys"),
        ("POST", "/admin/keys"),
        ("GET", "/admin/keys/x"),
        ("DELETE", "/admin/keys/x"),
        ("POST", "/admin/keys/x/rotate"),
        ("GET", "/admin/groups"),
        ("PUT", "/admin/groups/x"),
        ("DELETE", "/admin/groups/x"),
    ],
)
async def test_only_an_admin_may(both, method, path):
    client = both[0].client
    answers = {}
    for name, headers in {
        "none": {},
        "unknown": {"x-api-key": "sk-x"},
        "operator": {"x-api-key": "sk-op"},
        "page": {**ADMIN, "origin": "https://evil.example"},
    }.items():
        # doubled and trailing slashes lead to the same place
        for spelled in (path, f"{path}/", f"/{path}", path.replace("/admin", "/%61dmin")):
            url = f"http://{both[0].gateway.address}{spelled}"
            answer = await client.request(method, url, json={}, headers=headers)
            answers[name, spelled] = answer.status_code

    assert {401, 403} == set(answers.values())
    assert all(code == 401 for (name, _), code in answers.items() if name in {"none", "unknown"})


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ("{", None),
        ("[]", None),
        ('{"nme": "a"}', "nme"),
        ('{"name": 5}', "name"),
        ('{"name": ""}', "name"),
        ('{"name": "a", "scopes": {"models": "x"}}', None),
        ('{"name": "a", "scopes": ""}', "scopes"),
        ('{"name": "a", "scopes": []}', "scopes"),
        ('{"name": "a", "limits": ""}', "limits"),
        ('{"name": "a", "expires_at": "soon"}', "expires_at"),
        ('{"name": "a", "roles": ["root"]}', "roles"),
        ('{"name": "a", "limits": {"requests_per_minute": -1}}', None),
        (r'{"\ud800": 1}', None),
        (r'{"name": "\udc00"}', None),
        (r'{"name": "a", "scopes": {"models": ["\ud83d"]}}', None),
        ("[" * 5000, None),
    ],
)
async def test_what_cannot_be_is_a_bad_request(both, body, field):
    headers = {**ADMIN, "content-type": "application/json"}

    answer = await both[0].client.post("/admin/keys", content=body, headers=headers)

    assert 400 == answer.status_code
    if field is not None:
        assert field == answer.json()["error"]["param"]


async def test_a_query_that_nobody_reads_is_told(both):
    answer = await both[0].client.get("/admin/keys?pagesize=5", headers=ADMIN)
    bad = await both[0].client.get("/admin/keys?page_size=many", headers=ADMIN)

    assert "pagesize" == answer.json()["error"]["param"]
    assert 400 == bad.status_code


async def test_without_keys_the_own_machine_makes_the_first(tmp_path):
    async with administered(tmp_path, AuthSettings()) as (fleet, _):
        elsewhere = await fleet.client.get("/admin/keys", headers={"x-forwarded-for": "192.0.2.1"})
        made = await fleet.client.post("/admin/keys", json={"name": "me", "roles": ["admin"]})
        secret = made.json()["secret"]

        async def is_closed() -> bool:
            return (await fleet.client.get("/admin/keys")).status_code == 401

        await eventually(is_closed)
        listed = await fleet.client.get("/admin/keys", headers={"x-api-key": secret})

    assert 403 == elsewhere.status_code
    assert ["me"] == [one["name"] for one in listed.json()["keys"]]

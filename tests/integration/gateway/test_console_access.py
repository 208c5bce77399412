"""Who may look at the console and who may operate: keys, places, pages of other sites."""

from __future__ import annotations

import httpx
import pytest

from services.gateway.settings import ApiKey, AuthSettings
from tests.integration.gateway.fleet import Fleet

KEYS = AuthSettings(
    keys=(
        ApiKey(name="chat", key="chat-key"),
        ApiKey(name="viewer", key="view-key", console="view"),
        ApiKey(name="ops", key="ops-key", console="operate"),
        # of two keys of one name each has its own level
        ApiKey(name="ops", key="ops-chat-key"),
    )
)


async def look(fleet: Fleet, **headers: str) -> httpx.Response:
    return await fleet.client.get("/ui/requests", headers=headers)


async def cordon(fleet: Fleet, **headers: str) -> httpx.Response:
    return await fleet.client.post("/ui/cordon", json={"neuron": "n1"}, headers=headers)


@pytest.mark.parametrize(
    ("key", "looks", "operates"),
    [
        ("", 401, 401),
        ("wrong", 401, 401),
        ("chat-key", 403, 403),
        ("view-key", 200, 403),
        ("ops-chat-key", 403, 403),
    ],
)
async def test_a_key_may_what_its_console_says(
    bare: Fleet, key: str, looks: int, operates: int
) -> None:
    await bare.start(KEYS)
    headers = {"authorization": f"Bearer {key}"} if key else {}

    assert (await look(bare, **headers)).status_code == looks
    assert (await cordon(bare, **headers)).status_code == operates


async def test_a_refusal_says_what_the_key_has_and_needs(bare: Fleet) -> None:
    await bare.start(KEYS)

    message = (await cordon(bare, **{"x-api-key": "view-key"})).json()["error"]["message"]

    assert 'console = "view"' in message
    assert '"operate"' in message


async def test_an_operator_s_key_reaches_the_registry(bare: Fleet) -> None:
    await bare.start(KEYS)

    answer = await cordon(bare, **{"x-api-key": "ops-key"})

    # the stand-in registry has no such service: the gateway itself refused nothing
    assert answer.status_code == 501


async def test_keys_that_are_not_required_are_still_asked_for(bare: Fleet) -> None:
    await bare.start(AuthSettings(required=False, keys=KEYS.keys))

    assert (await look(bare)).status_code == 401
    assert (await bare.client.get("/v1/models")).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"x-forwarded-for": "10.0.0.7"},
        {"forwarded": "for=10.0.0.7"},
        {"via": "1.1 proxy"},
        {"host": "llm.example"},
        {"host": "10.1.2.3:31313"},
    ],
)
async def test_without_keys_only_the_own_machine_is_let_in(
    bare: Fleet, headers: dict[str, str]
) -> None:
    await bare.start(allowed_hosts=("llm.example",))

    assert (await look(bare)).status_code == 200
    refused = await look(bare, **headers)

    assert refused.status_code == 403
    assert "[[auth.keys]]" in refused.json()["error"]["message"]
    assert (await bare.client.get("/v1/models", headers=headers)).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://chat.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"host": "evil.example"},
    ],
)
async def test_no_other_page_asks_whatever_cors_allows(
    bare: Fleet, headers: dict[str, str]
) -> None:
    await bare.start(KEYS, cors_origins=("*",), allowed_hosts=("llm.example",))
    headers["authorization"] = "Bearer ops-key"

    for answer in (await look(bare, **headers), await cordon(bare, **headers)):
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers


async def test_no_preflight_opens_the_console(bare: Fleet) -> None:
    await bare.start(KEYS, cors_origins=("*",))
    asked = {"origin": "https://chat.example", "access-control-request-method": "POST"}

    answer = await bare.client.options("/ui/cordon", headers=asked)

    assert answer.status_code == 405
    assert "access-control-allow-origin" not in answer.headers


async def test_the_gateway_s_own_page_may_ask(fleet: Fleet) -> None:
    own = {"origin": f"http://{fleet.gateway.address}", "sec-fetch-site": "same-origin"}

    assert (await look(fleet, **own)).status_code == 200


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
async def test_an_operation_is_json_by_its_type(fleet: Fleet, kind: str) -> None:
    headers = {"content-type": kind} if kind else {}

    answer = await fleet.client.post("/ui/cordon", content=b'{"neuron":"n1"}', headers=headers)

    assert answer.status_code == 415


async def test_a_body_that_is_too_large_is_refused(fleet: Fleet) -> None:
    answer = await fleet.client.post("/ui/cordon", json={"neuron": "n" * 70_000})

    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("load", {}, "model"),
        ("load", {"model": ""}, "model"),
        ("load", {"model": "a", "where": "n1"}, None),
        ("load", {"model": "a", "attached": True, "wait": False}, "wait"),
        ("unload", {"model": "a", "drain_seconds": -1}, "drain_seconds"),
        ("cordon", {"neuron": 3}, "neuron"),
        ("reload", [], None),
    ],
)
async def test_a_bad_operation_names_its_field(
    fleet: Fleet, path: str, body: object, field: str | None
) -> None:
    answer = await fleet.client.post(f"/ui/{path}", json=body)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == field


async def test_new_keys_are_taken_in(bare: Fleet) -> None:
    await bare.start(KEYS)
    fresh = ApiKey(name="viewer", key="view-key", console="none")

    bare.gateway.services.auth.use(AuthSettings(keys=(fresh,)))

    assert (await look(bare, **{"x-api-key": "view-key"})).status_code == 403

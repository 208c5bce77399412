"""Who is let in: no page of a foreign site, no name that is not the gateway's own."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from services.gateway.settings import ApiKey, AuthSettings
from tests.integration.gateway.fleet import Fleet, chat_body
from tests.integration.gateway.responses_socket import connected

FOREIGN = [
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": "http://localhost:3000"},
    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
]
# What SDKs, editors and people send.
FRIENDLY = [
    {},
    {"user-agent": "curl/8.5"},
    {"sec-fetch-mode": "cors"},  # Node's fetch
    {"sec-fetch-site": "none", "sec-fetch-mode": "navigate"},
    {"sec-fetch-site": "same-origin"},
]


async def asked(fleet: Fleet, headers: dict[str, str], **more: Any) -> httpx.Response:
    body = httpx.Request("POST", "http://x", json=chat_body()).content
    headers = {"content-type": "text/plain", **headers}
    return await fleet.client.post("/v1/chat/completions", content=body, headers=headers, **more)


@pytest.mark.parametrize("headers", FOREIGN)
async def test_a_foreign_page_runs_nothing_whatever_its_content_type(
    fleet: Fleet, headers: dict[str, str]
) -> None:
    neuron = await fleet.add_neuron("n1")

    answer = await asked(fleet, headers)
    listed = await fleet.client.get("/v1/models", headers=headers)

    assert (answer.status_code, listed.status_code) == (403, 403)
    assert "gateway.cors_origins" in answer.json()["error"]["message"]
    assert neuron.requests == []


@pytest.mark.parametrize("headers", FRIENDLY)
async def test_others_are_served(fleet: Fleet, headers: dict[str, str]) -> None:
    await fleet.add_neuron("n1")

    assert (await asked(fleet, headers)).status_code == 200


async def test_a_page_of_the_gateway_itself_is_served(fleet: Fleet) -> None:
    await fleet.add_neuron("n1")
    origin = {"origin": f"http://{fleet.gateway.address}", "sec-fetch-site": "same-origin"}

    assert (await asked(fleet, origin)).status_code == 200


async def test_a_site_that_the_settings_allow_is_served(bare: Fleet) -> None:
    await bare.start(cors_origins=("https://chat.example",))
    await bare.add_neuron("n1")
    allowed = {"origin": "https://chat.example", "sec-fetch-site": "cross-site"}

    assert (await asked(bare, allowed)).status_code == 200
    assert (await asked(bare, FOREIGN[0])).status_code == 403


async def test_all_sites_are_served_where_all_are_allowed(bare: Fleet) -> None:
    await bare.start(cors_origins=("*",))
    await bare.add_neuron("n1")

    assert [(await asked(bare, one)).status_code for one in FOREIGN] == [200] * 4


NAMES = ["localhost:31313", "LOCALHOST.", "api.localhost", "127.0.0.1", "[::1]:80", "10.1.2.3:8"]


@pytest.mark.parametrize("host", NAMES)
async def test_on_loopback_its_own_names_are_served(fleet: Fleet, host: str) -> None:
    await fleet.add_neuron("n1")

    assert (await asked(fleet, {"host": host})).status_code == 200


async def test_on_loopback_another_name_is_served_only_where_it_is_set(bare: Fleet) -> None:
    await bare.start(allowed_hosts=("llm.example",))
    await bare.add_neuron("n1")

    assert (await asked(bare, {"host": "llm.example:80"})).status_code == 200
    refused = await asked(bare, {"host": "evil.example"})
    assert refused.status_code == 403
    assert "gateway.allowed_hosts" in refused.json()["error"]["message"]


async def test_on_all_addresses_every_name_is_served(bare: Fleet) -> None:
    await bare.start(listen="0.0.0.0:0")
    await bare.add_neuron("n1")
    port = bare.gateway.address.rpartition(":")[2]
    url = f"http://127.0.0.1:{port}/v1/models"

    assert (await bare.client.get(url, headers={"host": "llm.example"})).status_code == 200


async def test_a_refusal_is_worded_as_the_client_s_api_does(fleet: Fleet) -> None:
    answer = await fleet.client.post("/v1/messages", json={}, headers=FOREIGN[0])

    assert answer.json()["error"]["type"] == "permission_error"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((), 401),
        (((b"authorization", b"Bearer wrong"),), 401),
        (((b"authorization", b"Bearer secret"), (b"origin", b"https://evil.example")), 403),
    ],
)
async def test_a_socket_without_a_key_is_refused_at_its_handshake(
    bare: Fleet, headers: tuple[tuple[bytes, bytes], ...], status: int
) -> None:
    await bare.start(AuthSettings(keys=(ApiKey(name="a", key="secret"),)))
    async with connected(bare.gateway.address) as client:
        refused = await client.open("localhost", *headers)

    assert refused.status_code == status


@pytest.mark.parametrize(
    "path", ["/v1//chat/completions", "//v1/chat/completions", "/v1/chat/completions/"]
)
async def test_doubled_and_trailing_slashes_are_served(fleet: Fleet, path: str) -> None:
    await fleet.add_neuron("n1")
    url = f"http://{fleet.gateway.address}{path}"

    assert (await fleet.client.post(url, json=chat_body())).status_code == 200
    listed = await fleet.client.get(f"http://{fleet.gateway.address}//v1/models/")
    assert listed.status_code == 200


async def test_a_body_with_a_byte_order_mark_is_served(fleet: Fleet) -> None:
    await fleet.add_neuron("n1")
    body = b"\xef\xbb\xbf" + httpx.Request("POST", "http://x", json=chat_body()).content

    answer = await fleet.client.post("/v1/chat/completions", content=body)

    assert answer.status_code == 200

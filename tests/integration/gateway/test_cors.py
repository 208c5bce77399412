"""Pages of other sites, and what browsers ask before they let them."""

from __future__ import annotations

import asyncio

import pytest
from wsproto.events import AcceptConnection, RejectConnection

from services.gateway.settings import ApiKey, AuthSettings
from tests.doubles.scripted_neuron import Script
from tests.integration.gateway.fleet import SECONDS, Fleet, chat_body
from tests.integration.gateway.responses_socket import connected

SITE = "https://chat.example"
LOCAL = "http://localhost:5173"
KEYS = AuthSettings(keys=(ApiKey("alice", key="sk-alice"),))
PREFLIGHT = {
    "access-control-request-method": "POST",
    "access-control-request-headers": "authorization,content-type,x-stainless-os",
}


@pytest.fixture
async def open_to_site(bare: Fleet) -> Fleet:
    await bare.start(KEYS, cors_origins=(SITE, "http://localhost:*"))
    await bare.add_neuron()
    return bare


@pytest.mark.parametrize("origin", [SITE, LOCAL])
@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/models", "/v1/messages", "/api/tags"]
)
async def test_a_preflight_needs_no_key(open_to_site: Fleet, origin: str, path: str) -> None:
    answer = await open_to_site.client.options(path, headers={"origin": origin, **PREFLIGHT})

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin
    allowed = answer.headers["access-control-allow-headers"]
    assert {"authorization", "x-stainless-os"} <= {one.strip() for one in allowed.split(",")}
    assert "POST" in answer.headers["access-control-allow-methods"]


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://localhost.evil.example", "https://chat.example:1"]
)
async def test_other_sites_are_not_let_in(open_to_site: Fleet, origin: str) -> None:
    before = await open_to_site.client.options(
        "/v1/models", headers={"origin": origin, **PREFLIGHT}
    )
    answer = await open_to_site.client.get(
        "/v1/models", headers={"origin": origin, "x-api-key": "sk-alice"}
    )

    assert before.status_code == 400
    assert "access-control-allow-origin" not in {**before.headers, **answer.headers}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_page_may_read_answer_and_ids(open_to_site: Fleet, stream: bool) -> None:
    answer = await open_to_site.client.post(
        "/v1/chat/completions",
        json=chat_body(stream=stream),
        headers={"origin": SITE, "authorization": "Bearer sk-alice"},
    )

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == SITE
    exposed = answer.headers["access-control-expose-headers"]
    assert {"x-request-id", "retry-after"} <= {one.strip() for one in exposed.split(",")}
    assert "origin" in answer.headers["vary"].lower()
    assert answer.content


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/models", 401),
        ("POST", "/v1/chat/completions", 401),
        ("GET", "/v1/nothing", 404),
    ],
)
async def test_a_page_may_read_why_it_was_refused(
    open_to_site: Fleet, method: str, path: str, status: int
) -> None:
    answer = await open_to_site.client.request(method, path, headers={"origin": SITE})

    assert answer.status_code == status
    assert answer.headers["access-control-allow-origin"] == SITE


async def test_a_page_may_read_what_the_codec_refused(open_to_site: Fleet) -> None:
    host, _, port = open_to_site.gateway.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /v1/messages HTTP/1.1\r\nhost: t\r\norigin: https://chat.example\r\n"
        b"content-length: 99999999999\r\n\r\n"
    )
    async with asyncio.timeout(SECONDS):
        answer = await reader.read()
    writer.close()

    assert b"413 " in answer
    assert b"access-control-allow-origin: https://chat.example\r\n" in answer


async def test_nobody_is_let_in_unless_it_is_said(fleet: Fleet) -> None:
    await fleet.add_neuron()

    before = await fleet.client.options("/v1/models", headers={"origin": SITE, **PREFLIGHT})
    answer = await fleet.client.get("/v1/models", headers={"origin": SITE})

    assert before.status_code == 405
    assert "access-control-allow-origin" not in {**before.headers, **answer.headers}


async def test_everybody_may_be_let_in(bare: Fleet) -> None:
    await bare.start(cors_origins=("*",))

    answer = await bare.client.get("/v1/models", headers={"origin": "null"})

    assert answer.headers["access-control-allow-origin"] == "*"


async def test_a_socket_is_open_to_the_same_sites(bare: Fleet) -> None:
    await bare.start(cors_origins=(SITE,))

    told: list[type] = []
    for origin in (SITE, LOCAL):
        async with connected(bare.gateway.address) as socket:
            header = (b"origin", origin.encode())
            told.append(type(await socket.open(bare.gateway.address, header)))

    assert told == [AcceptConnection, RejectConnection]


async def test_a_leaving_page_stops_the_model(bare: Fleet) -> None:
    await bare.start(cors_origins=("*",))
    neuron = await bare.add_neuron("n1", Script(gate=asyncio.Event()))

    async with bare.client.stream(
        "POST", "/v1/chat/completions", json=chat_body(stream=True), headers={"origin": SITE}
    ) as response:
        await anext(response.aiter_lines())

    await neuron.until(lambda: len(neuron.cancelled) == 1)

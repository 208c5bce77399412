"""What never reaches an endpoint: it carries an id, and the words of the dialect it was meant for."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from tests.doubles.planted import logged
from tests.integration.gateway.fleet import SECONDS, Fleet

OPENAI, ANTHROPIC, OLLAMA = "/v1/chat/completions", "/v1/messages", "/api/chat"


async def raw(fleet: Fleet, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Sends bytes as they are; status, headers and body of what comes back."""
    host, _, port = fleet.gateway.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        async with asyncio.timeout(SECONDS):
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    finally:
        writer.close()
    status, *lines = head.decode().split("\r\n")
    return int(status.split()[1]), dict(line.split(": ", 1) for line in lines), body


def message_of(path: str, body: bytes) -> str:
    """The words of an error in the envelope of the dialect that a path belongs to."""
    said = json.loads(body)
    if path == OLLAMA:
        assert isinstance(said["error"], str)
        return str(said["error"])
    assert (said.get("type") == "error") == (path == ANTHROPIC)
    return str(said["error"]["message"])


REFUSALS = {
    "body too large": (413, b"content-length: 99999999999\r\n\r\n"),
    "headers too large": (431, b"x: " + b"y" * 70_000 + b"\r\n\r\n"),
    "bad chunk": (400, b"transfer-encoding: chunked\r\n\r\nzz\r\n"),
    "two hosts": (400, b"host: u\r\n\r\n"),
    "unknown coding": (501, b"transfer-encoding: gzip\r\n\r\n"),
}


@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC, OLLAMA])
@pytest.mark.parametrize("case", REFUSALS)
async def test_the_codec_refuses_in_the_dialects_envelope_with_an_id(
    fleet: Fleet, path: str, case: str
) -> None:
    status, rest = REFUSALS[case]

    head = f"POST {path} HTTP/1.1\r\nhost: t\r\n".encode()
    told, headers, body = await raw(fleet, head + rest)

    assert told == status
    assert headers["content-type"] == "application/json"
    assert re.fullmatch(r"req_[0-9a-f]+", headers["x-request-id"])
    assert headers["request-id"] == headers["x-request-id"]
    assert message_of(path, body)


async def test_a_header_tells_the_dialect_where_the_path_does_not(fleet: Fleet) -> None:
    head = b"GET /v1/models HTTP/1.1\r\nhost: t\r\nhost: u\r\nanthropic-version: 1\r\n\r\n"

    _, headers, body = await raw(fleet, head)

    said = json.loads(body)
    assert said["type"] == "error"
    assert said["request_id"] == headers["x-request-id"]


async def test_a_body_that_is_too_large_has_the_type_that_the_sdk_knows(fleet: Fleet) -> None:
    head = b"POST /v1/messages HTTP/1.1\r\nhost: t\r\ncontent-length: 99999999999\r\n\r\n"

    _, _, body = await raw(fleet, head)

    assert json.loads(body)["error"]["type"] == "request_too_large"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/api/nothing", 404),
        ("GET", "/v1/messages/nothing", 404),
        ("PUT", OPENAI, 405),
        ("DELETE", ANTHROPIC, 405),
        ("GET", OLLAMA, 405),
    ],
)
async def test_what_has_no_route_keeps_the_clients_own_id(
    fleet: Fleet, method: str, path: str, status: int
) -> None:
    answer = await fleet.client.request(method, path, headers={"x-request-id": "mine-1"})

    assert answer.status_code == status
    assert answer.headers["x-request-id"] == "mine-1"
    assert ("allow" in answer.headers) == (status == 405)
    family = next((p for p in (ANTHROPIC, OLLAMA) if path.startswith(p[:5])), OPENAI)
    assert "x-request-id" in answer.headers
    if not path.startswith("/v1/messages/"):
        assert message_of(OPENAI if path.startswith("/v1/nothing") else family, answer.content)


@pytest.mark.parametrize("path", ["/v1/v1/messages", "/v1/api/chat"])
async def test_a_base_url_that_is_too_long_is_told(fleet: Fleet, path: str) -> None:
    answer = await fleet.client.post(path, json={}, headers={"anthropic-version": "1"})

    assert answer.status_code == 404
    assert "base URL" in answer.json()["error"]["message"]


async def test_messages_are_served_where_the_base_url_was_to_hold_the_version(fleet: Fleet) -> None:
    await fleet.add_neuron()
    body = {"model": "tiny", "max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]}

    answer = await fleet.client.post("/messages", json=body)
    refused = await fleet.client.post("/messages", json=body | {"model": "nonesuch"})

    assert answer.json()["type"] == "message"
    assert refused.json()["type"] == "error"


async def test_what_is_refused_is_counted_by_its_reason(fleet: Fleet) -> None:
    await fleet.client.get("/nowhere")
    await raw(fleet, b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 99999999999\r\n\r\n")

    assert fleet.metric("cortex_gateway_errors_total", reason="NOT_FOUND") == 1
    assert fleet.metric("cortex_gateway_errors_total", reason="BODY_TOO_LARGE") == 1


_HUGE = "a" * 1_000_000
_HUGE_BODIES = [
    {"model": _HUGE, "messages": [{"role": "user", "content": "x"}]},
    {"model": "m", "messages": [{"role": _HUGE, "content": "x"}], "max_tokens": 1},
    {"model": "m", "messages": [], "max_tokens": 1, _HUGE: 1},
    {"model": "m", "messages": [{"role": "user", "content": [{"type": _HUGE}]}], "max_tokens": 1},
]


@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC, OLLAMA])
@pytest.mark.parametrize("body", _HUGE_BODIES, ids=["model", "role", "key", "type"])
async def test_a_huge_name_is_neither_answered_nor_logged_whole(
    fleet: Fleet, path: str, body: dict[str, object]
) -> None:
    with logged("json", "gateway") as log:
        response = await fleet.client.post(path, json=body)

    assert response.status_code in {200, 400, 404}  # Ollama passes unknown keys over
    assert len(response.content) < 3_000
    assert len(log.getvalue()) < 5_000

"""Answers, streamed and not, through a real server and a real Session."""

from __future__ import annotations

import asyncio

import httpx

from tests.doubles.scripted_neuron import Script, text
from tests.integration.gateway.fleet import Fleet, chat_body, contents, lines


async def test_a_chat_is_answered_in_one_body(fleet: Fleet) -> None:
    neuron = await fleet.add_neuron()

    response = await fleet.chat()

    assert response.status_code == 200
    answer = response.json()
    assert answer["choices"][0]["message"]["content"] == "Hello world"
    assert answer["usage"]["prompt_tokens"] == 7
    assert answer["usage"]["completion_tokens"] == 2
    assert neuron.requests[0].model == "tiny"
    assert neuron.requests[0].instance_id == "n1/tiny"


async def test_a_chat_is_streamed(fleet: Fleet) -> None:
    await fleet.add_neuron()

    async with fleet.streamed() as response:
        body = (await response.aread()).decode()

    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "".join(contents(body)) == "Hello world"
    assert body.rstrip().endswith("data: [DONE]")


async def test_deltas_arrive_as_they_are_made(fleet: Fleet) -> None:
    """The second delta is only made once the client has read the first."""
    gate = asyncio.Event()
    await fleet.add_neuron("n1", Script([text("one"), text("two")], gate=gate))

    seen: list[str] = []
    async with fleet.streamed() as response:
        async for line in lines(response):
            seen += contents(line)
            if seen == ["one"]:
                gate.set()

    assert seen == ["one", "two"]


async def test_http_2_is_served_as_well(fleet: Fleet) -> None:
    await fleet.add_neuron()
    base = f"http://{fleet.gateway.address}"
    async with httpx.AsyncClient(base_url=base, http1=False, http2=True, trust_env=False) as client:
        whole = await client.post("/v1/chat/completions", json=chat_body())
        streamed = await client.post("/v1/chat/completions", json=chat_body(stream=True))

    assert whole.http_version == "HTTP/2"
    assert whole.json()["choices"][0]["message"]["content"] == "Hello world"
    assert "".join(contents(streamed.text)) == "Hello world"


async def test_a_model_says_how_long_it_wants_to_stay(fleet: Fleet) -> None:
    """Ollama's `keep_alive` reaches the registry also when the model is loaded already."""
    await fleet.add_neuron()

    body = {"model": "tiny", "prompt": "Hi", "stream": False, "keep_alive": "90s"}
    response = await fleet.client.post("/api/generate", json=body)

    assert response.status_code == 200
    async with asyncio.timeout(60):
        while not fleet.registry.ensured:
            await asyncio.sleep(0.01)
    assert fleet.registry.ensured[0].keep_alive.seconds == 90

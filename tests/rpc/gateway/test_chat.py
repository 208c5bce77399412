"""Answers, streamed and not, through a real server and a real Session."""

from __future__ import annotations

import asyncio

from tests.rpc.gateway.fleet import Fleet, contents, lines
from tests.rpc.scripted_neuron import Script, text


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

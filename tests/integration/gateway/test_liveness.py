"""Streams on which nothing happens."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from services.backplane.errors import FleetError, Reason, context_too_long
from tests.doubles.scripted_neuron import Script, queued, text
from tests.integration.gateway.fleet import Fleet, contents, lines

PATHS = {
    "/v1/chat/completions": {},
    "/v1/messages": {"max_tokens": 9},
}


@pytest.mark.parametrize("path", PATHS)
async def test_silence_is_filled_with_comments_and_events(bare: Fleet, path: str) -> None:
    await bare.start(keepalive_seconds=0.1, heartbeat_seconds=0.4)
    gate = asyncio.Event()
    await bare.add_neuron("n1", Script([text("one"), text("two")], gate=gate))
    body = {
        "model": "tiny", "stream": True, "messages": [{"role": "user", "content": "Hi"}],
        **PATHS[path],
    }  # fmt: skip

    comments = events = 0
    async with bare.client.stream("POST", path, json=body) as response:
        one = False
        async for line in lines(response):
            one = one or "one" in line
            if one and not gate.is_set():
                comments += line.startswith(":")
                events += line.startswith("data:") and "one" not in line
                if comments >= 5 and events >= 2:
                    gate.set()

    assert comments >= 5
    assert events >= 2


async def test_a_stream_without_its_first_event_says_that_it_lives(bare: Fleet) -> None:
    """The keep-alive comes from the gateway itself, while the neuron is silent."""
    await bare.start(keepalive_seconds=0.1)
    neuron = await bare.add_neuron("n1", Script(silent=True))

    async with bare.streamed() as response:
        async for line in lines(response):
            if line.startswith(":"):
                break

    assert response.status_code == 200
    await neuron.until(lambda: neuron.cancelled)


async def test_a_failure_within_the_first_moment_has_its_http_status(fleet: Fleet) -> None:
    error = FleetError(Reason.TEMPLATE_FAILED, "The template failed.")
    await fleet.add_neuron("n1", Script(refuse=error))

    assert (await fleet.chat(stream=True)).status_code == 422


LARGE = [{"role": "user", "content": "word " * 1000}]


async def five_keepalives(response: httpx.Response) -> None:
    comments = 0
    async for line in lines(response):
        comments += line.startswith(":")
        if comments == 5:
            return


async def test_too_long_a_prompt_is_refused_before_the_head_however_long_it_is_counted(
    bare: Fleet,
) -> None:
    """Others are kept alive meanwhile, whose prompts cannot be too long."""
    await bare.start(keepalive_seconds=0.1)
    counting = asyncio.Event()
    error = context_too_long(prompt_tokens=9000, max_tokens=2048)
    scripts = [Script(refuse=error, counting=counting), Script(silent=True)]
    neuron = await bare.add_neuron("n1", *scripts)

    large = asyncio.create_task(bare.chat(stream=True, messages=LARGE))
    await neuron.until(lambda: neuron.requests)
    async with bare.streamed() as response:
        await five_keepalives(response)
    counting.set()

    answer = await large
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"


async def test_a_long_prompt_that_is_admitted_is_kept_alive(bare: Fleet) -> None:
    await bare.start(keepalive_seconds=0.1)
    gate = asyncio.Event()
    await bare.add_neuron("n1", Script([queued(1), text("late")], gate=gate))

    async with bare.streamed(messages=LARGE) as response:
        await five_keepalives(response)
        gate.set()

    assert response.status_code == 200


async def test_a_failure_behind_a_long_silence_is_an_error_frame(bare: Fleet) -> None:
    await bare.start(keepalive_seconds=0.1)
    error = FleetError(Reason.BAD_CONSTRAINT, "The schema is recursive.")
    gate = asyncio.Event()
    bare.registry.steps = [gate, error]

    async with bare.streamed() as response:
        found = ""
        async for line in lines(response):
            found += line + "\n"
            gate.set()

    assert response.status_code == 200
    assert "The schema is recursive." in found
    assert contents(found) == []


async def test_a_place_in_the_queue_is_told(bare: Fleet) -> None:
    await bare.start(keepalive_seconds=0.1)
    gate = asyncio.Event()
    await bare.add_neuron("n1", Script([queued(3), text("one")], gate=gate))

    async with bare.streamed() as response:
        found = ""
        async for line in lines(response):
            found += line
            if "queue" in found:
                gate.set()

    assert "3" in found.split("queue", 1)[1][:40]

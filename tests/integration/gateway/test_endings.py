"""Clients that leave, clients that do not read, gateways that are told to stop."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from services.gateway.server import Http1Codec
from tests.doubles.scripted_neuron import Script, text
from tests.integration.gateway.fleet import SECONDS, Fleet, chat_body, contents, lines

CODECS: list[Http1Codec] = ["fast", "stock"]


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def raw_request(
    fleet: Fleet, **more: object
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Sends a chat request on a connection of its own."""
    host, _, port = fleet.gateway.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    body = json.dumps(chat_body(**more)).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b"
        % (len(body), body)
    )
    await writer.drain()
    return reader, writer


async def leave(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    await asyncio.sleep(0)


@pytest.mark.parametrize("transport", ["session", "generate"])
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
async def test_a_client_that_leaves_stops_its_generation(
    bare: Fleet, codec: str, transport: str, stream: bool
) -> None:
    await bare.start(http1_codec=codec, transport=transport)
    neuron = await bare.add_neuron("n1", Script([text("one"), text("two")], gate=asyncio.Event()))
    reader, writer = await raw_request(bare, stream=stream)
    await neuron.until(lambda: neuron.active == 1)
    if stream:
        await reader.readuntil(b"one")

    await leave(writer)

    await neuron.until(lambda: neuron.active == 0)
    assert len(neuron.cancelled) == 1


async def test_a_client_that_leaves_while_a_model_is_placed_stops_waiting(fleet: Fleet) -> None:
    fleet.registry.steps = [asyncio.Event()]
    _, writer = await raw_request(fleet)
    async with asyncio.timeout(60):
        while not fleet.registry.ensured:
            await asyncio.sleep(0.01)

    await leave(writer)

    async with asyncio.timeout(60):
        while fleet.metric("cortex_gateway_requests_open"):
            await asyncio.sleep(0.01)
    assert fleet.metric("cortex_gateway_errors_total", reason="CANCELLED") == 1


async def test_a_slow_reader_is_given_up_and_harms_nobody(bare: Fleet) -> None:
    """Its neighbour on the same session gets every token meanwhile."""
    await bare.start(slow_reader_seconds=0.3, keepalive_seconds=0.2, window_tokens=64)
    flood = Script([text("x" * 2000)] * 20_000)
    neighbour = Script([text(f"{i} ") for i in range(500)])
    neuron = await bare.add_neuron("n1", flood, neighbour)
    _, writer = await raw_request(bare, stream=True)
    await neuron.until(lambda: neuron.active == 1)

    whole = await bare.stream_text()

    assert "".join(contents(whole)).split() == [str(i) for i in range(500)]
    await neuron.until(lambda: len(neuron.cancelled) == 1)
    assert bare.metric("cortex_gateway_errors_total", reason="SLOW_READER") == 1
    writer.close()


async def test_a_reader_that_catches_up_has_missed_nothing(bare: Fleet) -> None:
    await bare.start(window_tokens=64)
    pieces = [f"{i:06d} " + "y" * 1000 for i in range(3000)]
    await bare.add_neuron("n1", Script([text(piece) for piece in pieces]))

    async with bare.streamed() as response:
        await asyncio.sleep(0.3)  # long enough for every buffer on the way to be full
        body = (await response.aread()).decode()

    assert "".join(contents(body)) == "".join(pieces)


async def test_credit_bounds_how_far_a_neuron_runs_ahead(bare: Fleet) -> None:
    await bare.start(window_tokens=64)
    neuron = await bare.add_neuron("n1", Script([text("z")] * 1000))

    await bare.stream_text()

    assert sum(neuron.credits) >= 1000 - 64
    assert max(neuron.credits) <= 64


async def test_two_hundred_and_fifty_six_streams_at_once_all_finish(fleet: Fleet) -> None:
    neuron = await fleet.add_neuron("n1", Script([text(f"{i} ") for i in range(20)], gap=0.002))
    limits = httpx.Limits(max_connections=300)
    base = f"http://{fleet.gateway.address}"
    async with httpx.AsyncClient(base_url=base, limits=limits, timeout=60) as client:

        async def one() -> str:
            body = chat_body(stream=True)
            return (await client.post("/v1/chat/completions", json=body)).text

        answers = await asyncio.gather(*(one() for _ in range(256)))

    expected = "".join(f"{i} " for i in range(20))
    assert {"".join(contents(answer)) for answer in answers} == {expected}
    assert neuron.sessions == 1
    assert fleet.metric("cortex_gateway_streams_open") == 0


async def test_readiness_flips_and_a_running_stream_finishes(fleet: Fleet) -> None:
    gate = asyncio.Event()
    await fleet.add_neuron("n1", Script([text("one"), text("two")], gate=gate))
    assert (await fleet.client.get("/readyz")).status_code == 200

    seen: list[str] = []
    async with fleet.streamed() as response:
        async for line in lines(response):
            seen += contents(line)
            if seen == ["one"] and not gate.is_set():
                fleet.shutdown.request()
                await asyncio.sleep(0)
                gate.set()

    assert seen == ["one", "two"]
    await fleet.ended()
    assert fleet.gateway.readiness.problem() is not None


async def test_a_request_that_has_not_come_whole_does_not_hold_the_drain(
    bare: Fleet, codec: str
) -> None:
    await bare.start(drain_seconds=60.0, http1_codec=codec)
    gate = asyncio.Event()
    await bare.add_neuron("n1", Script([text("one"), text("two")], gate=gate))
    host, _, port = bare.gateway.address.rpartition(":")
    async with bare.streamed() as running:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-length: 500\r\n\r\n{"
        )
        while bare.metric("cortex_gateway_requests_open") < 2:
            await asyncio.sleep(0)

        bare.shutdown.request()

        async with asyncio.timeout(SECONDS):
            answer = await reader.read()
        assert b"HTTP/1.1 503" in answer
        assert b"shutting down" in answer
        assert not gate.is_set()
        writer.close()
        gate.set()
        found = [piece async for line in lines(running) for piece in contents(line)]
    assert found == ["one", "two"]
    await bare.ended()


async def test_a_stream_that_outlasts_the_drain_ends_in_words(bare: Fleet) -> None:
    await bare.start(drain_seconds=1.2)
    await bare.add_neuron("n1", Script([text("one"), text("two")], gate=asyncio.Event()))

    async with bare.streamed() as response:
        found = ""
        async for line in lines(response):
            found += line
            if "one" in line:
                bare.shutdown.request()

    assert "shutting_down" in found
    await bare.ended()

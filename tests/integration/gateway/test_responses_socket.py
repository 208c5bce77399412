"""Responses over a WebSocket, and compaction, through a real server."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from wsproto.events import AcceptConnection, CloseConnection, RejectConnection

from tests.doubles.scripted_neuron import Script, text
from tests.integration.gateway.fleet import Fleet
from tests.integration.gateway.responses_socket import connected


async def test_turns_follow_each_other_on_one_connection(fleet: Fleet) -> None:
    neuron = await fleet.add_neuron()
    async with connected(fleet.gateway.address) as socket:
        assert isinstance(await socket.open(fleet.gateway.address), AcceptConnection)
        first = await socket.turn(input="Hi", store=False)
        second = await socket.turn(
            input="More", store=False, previous_response_id=first[-1]["response"]["id"]
        )

    assert "response.created" == first[0]["type"]
    assert list(range(len(first))) == [event["sequence_number"] for event in first]
    assert "Hello world" == second[-1]["response"]["output"][0]["content"][0]["text"]
    assert second[-1]["response"]["store"] is False
    assert 3 == len(neuron.requests[1].chat.messages)


async def test_an_idle_connection_is_closed_and_a_busy_one_is_not(bare: Fleet) -> None:
    await bare.start(socket_idle_seconds=0.3, keepalive_seconds=0.1)
    gate = asyncio.Event()
    await bare.add_neuron("n1", Script([text("one"), text("two")], gate=gate), Script())
    async with connected(bare.gateway.address) as idle, connected(bare.gateway.address) as busy:
        await busy.open(bare.gateway.address)
        await busy.say({"type": "response.create", "model": "tiny", "input": "Hi"})
        await idle.open(bare.gateway.address)
        closed = await idle.event()
        gate.set()
        told = await busy.told()
        again = await busy.turn(input="Again")
        closed_too = await busy.event()

    assert isinstance(closed, CloseConnection)
    assert 1001 == closed.code
    assert "response.completed" == told[-1]["type"] == again[-1]["type"]
    assert isinstance(closed_too, CloseConnection)


async def test_what_is_not_stored_ends_with_its_connection(fleet: Fleet) -> None:
    await fleet.add_neuron()
    async with connected(fleet.gateway.address) as socket:
        await socket.open(fleet.gateway.address)
        first = await socket.turn(input="Hi", store=False)
    async with connected(fleet.gateway.address) as socket:
        await socket.open(fleet.gateway.address)
        lost = await socket.turn(input="More", previous_response_id=first[-1]["response"]["id"])
        anew = await socket.turn(input="Again")

    assert ("error", "previous_response_not_found") == (lost[0]["type"], lost[0]["error"]["code"])
    assert "response.completed" == anew[-1]["type"]


async def test_a_failed_turn_forgets_what_it_went_on_from(fleet: Fleet) -> None:
    await fleet.add_neuron()
    orphan = {"type": "function_call_output", "call_id": "call_none", "output": "?"}
    async with connected(fleet.gateway.address) as socket:
        await socket.open(fleet.gateway.address)
        first = (await socket.turn(input="Hi", store=False))[-1]["response"]["id"]
        failed = await socket.turn(input=[orphan], store=False, previous_response_id=first)
        again = await socket.turn(input="More", store=False, previous_response_id=first)

    assert (400, "input") == (failed[0]["status"], failed[0]["error"]["param"])
    assert "previous_response_not_found" == again[0]["error"]["code"]


async def test_lanes_run_beside_each_other_and_are_told_apart(fleet: Fleet) -> None:
    gate = asyncio.Event()
    neuron = await fleet.add_neuron("n1", Script([text("slow"), text("ly")], gate=gate), Script())
    ask = {"type": "response.create", "model": "tiny", "input": "Hi"}
    async with connected(fleet.gateway.address) as socket:
        await socket.open(fleet.gateway.address)
        await socket.say(ask | {"stream_id": "one"})
        await neuron.until(lambda: neuron.active == 1)
        await socket.say(ask | {"stream_id": "one"})
        await socket.say(ask | {"stream_id": "two.b"})
        events = await socket.told()
        asked_meanwhile = len(neuron.requests)
        gate.set()
        events += await socket.told()
        events += await socket.told()

    ends = [one["stream_id"] for one in events if one["type"] == "response.completed"]
    assert ends == ["two.b", "one", "one"]
    assert asked_meanwhile == 2, "the second turn of a lane waits for the first"
    numbers = [one["sequence_number"] for one in events if one["stream_id"] == "two.b"]
    assert numbers == list(range(len(numbers)))


async def test_too_many_lanes_are_refused(fleet: Fleet) -> None:
    neuron = await fleet.add_neuron("n1", Script(silent=True))
    ask = {"type": "response.create", "model": "tiny", "input": "Hi"}
    async with connected(fleet.gateway.address) as socket:
        await socket.open(fleet.gateway.address)
        for number in range(16):
            await socket.say(ask | {"stream_id": f"lane-{number}"})
        await neuron.until(lambda: neuron.active == 16)
        await socket.say(ask | {"stream_id": "one-more"})
        (refused,) = await socket.told()

    assert refused["stream_id"] == "one-more"
    assert refused["error"]["code"] == "websocket_stream_limit_reached"


async def test_the_name_of_a_lane_is_checked(fleet: Fleet) -> None:
    await fleet.add_neuron()
    async with connected(fleet.gateway.address) as socket:
        await socket.open(fleet.gateway.address)
        await socket.say({"type": "response.create", "model": "tiny", "stream_id": "no spaces"})
        (refused,) = await socket.told()

    assert refused["error"]["param"] == "stream_id"


@pytest.mark.parametrize("message", [{"type": "response.cancel"}, ["no object"], {}])
async def test_a_message_of_no_known_kind_is_refused_and_the_connection_goes_on(
    fleet: Fleet, message: Any
) -> None:
    await fleet.add_neuron()
    async with connected(fleet.gateway.address) as socket:
        await socket.open(fleet.gateway.address)
        await socket.say(message)
        refused = await socket.told()
        after = await socket.turn(input="Hi")

    assert ("error", 400) == (refused[0]["type"], refused[0]["status"])
    assert "response.completed" == after[-1]["type"]


@pytest.mark.parametrize(
    "said",
    [
        '{"type": "response.create", "model": "tiny", "input": '
        + "[" * 100_000
        + "]" * 100_000
        + "}",
        '{"type": "response.create", "model": "tiny", "input": [' + "[" * 900 + "]" * 900 + "]}",
        '{"type": "response.create", "model": "tiny", "input": "x", "tools": [{"type": ["f"]}]}',
        '{"type": "response.create", "model": "tiny", "seed": 1' + "0" * 60 + ', "input": [7]}',
        "[]",
        '"x"',
    ],
    ids=["endless", "deep", "odd type", "odd item", "list", "text"],
)
async def test_a_message_that_cannot_be_read_is_refused_and_the_connection_goes_on(
    fleet: Fleet, said: str
) -> None:
    await fleet.add_neuron()
    async with connected(fleet.gateway.address) as socket:
        await socket.open(fleet.gateway.address)
        await socket.send(said)
        refused = await socket.told()
        served = await socket.turn(input="Hi")

    assert [(one["type"], one["status"]) for one in refused] == [("error", 400)]
    assert served[-1]["type"] == "response.completed"


async def test_a_client_that_leaves_stops_its_turn(fleet: Fleet) -> None:
    neuron = await fleet.add_neuron("n1", Script([text("word ")] * 500, gap=0.05))
    async with connected(fleet.gateway.address) as socket:
        await socket.open(fleet.gateway.address)
        await socket.say({"type": "response.create", "model": "tiny", "input": "Hi"})
        await neuron.until(lambda: neuron.active == 1)

    await neuron.until(lambda: len(neuron.cancelled) == 1)


async def test_a_page_of_another_site_may_not_connect(fleet: Fleet) -> None:
    async with connected(fleet.gateway.address) as socket:
        answer = await socket.open(fleet.gateway.address, (b"origin", b"https://elsewhere.example"))

    assert isinstance(answer, RejectConnection)
    assert 403 == answer.status_code


async def test_a_compacted_conversation_is_gone_on_from(fleet: Fleet) -> None:
    neuron = await fleet.add_neuron("n1", Script([text("They want tea.")]), Script())
    url = f"http://{fleet.gateway.address}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
        shorter = await client.responses.compact(
            model="tiny", input=[{"role": "user", "content": "I want tea."}]
        )
        kept: list[Any] = [item.model_dump() for item in shorter.output]
        await client.responses.create(
            model="tiny", input=[*kept, {"role": "user", "content": "Go on."}]
        )

    assert ["compaction"] == [item.type for item in shorter.output]
    asked, after = (request.chat.messages for request in neuron.requests)
    assert "I want tea." == asked[0].parts[0].text
    assert after[0].parts[0].text.endswith("They want tea.")

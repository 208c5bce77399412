"""What bodies, messages and connections may take of the gateway, all of them together."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Self

import httpx
import pytest
from wsproto.events import CloseConnection, TextMessage

from tests.doubles.scripted_neuron import Script, text
from tests.integration.gateway.fleet import Fleet, chat_body
from tests.integration.gateway.responses_socket import connected

HEAD = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {size}\r\n\r\n"


class Trickle:
    """A client that sends a part of a body and then waits."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def __aenter__(self) -> Self:
        host, _, port = self._fleet.gateway.address.rpartition(":")
        self.reader, self.writer = await asyncio.open_connection(host, int(port))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.close()

    async def send(self, size: int, *, of: int = 1_000_000) -> None:
        self.writer.write(HEAD.format(size=of).encode() + b" " * size)
        await self.writer.drain()

    async def status(self) -> int:
        async with asyncio.timeout(60):
            return int((await self.reader.readline()).split()[1])


async def until_held(fleet: Fleet, size: int) -> None:
    async with asyncio.timeout(60):
        while fleet.gateway.services.bodies.held_bytes != size:
            await asyncio.sleep(0.01)


async def test_bodies_share_a_budget_that_a_request_gives_back(bare: Fleet) -> None:
    await bare.start(bodies_bytes=300_000)
    await bare.add_neuron("n1")
    async with Trickle(bare) as first, Trickle(bare) as second:
        await first.send(200_000)
        await until_held(bare, 200_000)
        assert (await bare.chat()).status_code == 200  # small ones still fit
        await second.send(200_000)

        assert await second.status() == 429
    await until_held(bare, 0)
    assert (await bare.chat(user="x" * 200_000)).status_code == 200
    await until_held(bare, 0)


async def test_a_body_that_trickles_is_ended(bare: Fleet) -> None:
    await bare.start(body_seconds=0.3, body_bytes_per_second=100_000, keepalive_seconds=0.2)
    async with Trickle(bare) as slow:
        await slow.send(20_000)

        began = asyncio.get_running_loop().time()
        assert await slow.status() == 408
        assert 0.4 < asyncio.get_running_loop().time() - began < 3
    await until_held(bare, 0)


async def test_an_http2_body_has_the_same_deadline(bare: Fleet) -> None:
    await bare.start(body_seconds=0.3, keepalive_seconds=0.2)

    async def body() -> Any:
        yield b" "
        await asyncio.sleep(30)
        yield b" "

    async with httpx.AsyncClient(http1=False, http2=True) as h2, asyncio.timeout(60):
        url = f"http://{bare.gateway.address}/v1/chat/completions"
        asking = asyncio.create_task(h2.post(url, content=body()))
        await until_held(bare, 1)
        await until_held(bare, 0)
        asking.cancel()
        await asyncio.wait({asking})


async def test_unfinished_messages_of_sockets_count_and_have_to_come_on(bare: Fleet) -> None:
    await bare.start(bodies_bytes=300_000, body_seconds=0.5, body_bytes_per_second=1_000_000)
    async with connected(bare.gateway.address) as one, connected(bare.gateway.address) as two:
        await one.open("localhost")
        await two.open("localhost")
        await one.piece("x" * 200_000)
        await until_held(bare, 200_000)
        await two.piece("x" * 200_000)

        refused = await two.event()
        assert isinstance(refused, CloseConnection)
        assert refused.code == 1009  # too big
        late = await one.event()
        assert isinstance(late, CloseConnection)
        assert late.code == 1008
        await until_held(bare, 0)


async def test_a_socket_s_message_is_whole_again(bare: Fleet) -> None:
    await bare.start()
    await bare.add_neuron("n1")
    async with connected(bare.gateway.address) as one:
        await one.open("localhost")
        said = json.dumps({"type": "response.create", "model": "tiny", "input": "ä" * 1000})
        await one.piece(said[:500])
        await one.piece(said[500:], is_last=True)

        assert (await one.told())[-1]["type"] == "response.completed"
    await until_held(bare, 0)


async def test_turns_of_a_socket_that_wait_count_until_they_have_run(bare: Fleet) -> None:
    await bare.start(bodies_bytes=500_000)
    gate = asyncio.Event()
    neuron = await bare.add_neuron("n1", Script([text("a"), text("b")], gate=gate), Script())
    ask = {"type": "response.create", "model": "tiny", "input": "x" * 100_000}
    large = json.dumps(chat_body(user="x" * 200_000))
    async with connected(bare.gateway.address) as one:
        await one.open("localhost")
        await one.say(ask)
        await neuron.until(lambda: neuron.active == 1)
        for _ in range(3):
            await one.say(ask)
        async with asyncio.timeout(60):
            while bare.gateway.services.bodies.held_bytes < 400_000:
                await asyncio.sleep(0.01)
        refused = await bare.client.post("/v1/chat/completions", content=large)
        gate.set()
        for _ in range(4):
            assert (await one.told())[-1]["type"] == "response.completed"
        await until_held(bare, 0)

        assert refused.status_code == 429
        assert (await bare.client.post("/v1/chat/completions", content=large)).status_code == 200


async def test_turns_that_wait_are_given_back_where_their_client_leaves(bare: Fleet) -> None:
    await bare.start()
    gate = asyncio.Event()
    neuron = await bare.add_neuron("n1", Script([text("a"), text("b")], gate=gate), Script())
    ask = {"type": "response.create", "model": "tiny", "input": "x" * 100_000}
    async with connected(bare.gateway.address) as one:
        await one.open("localhost")
        await one.say(ask)
        await neuron.until(lambda: neuron.active == 1)
        for _ in range(10):
            await one.say(ask)
        async with asyncio.timeout(60):
            while bare.gateway.services.bodies.held_bytes < 1_000_000:
                await asyncio.sleep(0.01)

    await until_held(bare, 0)


async def test_responses_that_a_socket_keeps_count_as_long_as_it_lives(bare: Fleet) -> None:
    await bare.start()
    await bare.add_neuron("n1")
    async with connected(bare.gateway.address) as one:
        await one.open("localhost")
        for _ in range(2):
            await one.turn(input="x" * 100_000, store=False)
        assert bare.gateway.services.bodies.held_bytes > 200_000

    await until_held(bare, 0)


async def test_a_message_of_very_many_items_is_refused_before_it_is_decoded(bare: Fleet) -> None:
    await bare.start(max_body_items=1000)
    async with connected(bare.gateway.address) as one:
        await one.open("localhost")
        (refused,) = await one.turn(input=[{"role": "user", "content": "x"}] * 501)

    assert refused["status"] == 413
    assert "gateway.max_body_items" in refused["error"]["message"]
    await until_held(bare, 0)


async def test_a_stored_conversation_counts_as_a_part_of_the_request(bare: Fleet) -> None:
    await bare.start(max_body_bytes=500_000, max_body_items=1000)
    neuron = await bare.add_neuron("n1")

    async def turn(**fields: Any) -> httpx.Response:
        return await bare.client.post("/v1/responses", json={"model": "tiny", **fields})

    first = (await turn(input="x" * 200_000)).json()
    second = (await turn(input="x" * 200_000, previous_response_id=first["id"])).json()
    third = await turn(input="x" * 200_000, previous_response_id=second["id"])
    many = (await turn(input=[{"role": "user", "content": "x"}] * 300)).json()
    more = await turn(
        input=[{"role": "user", "content": "x"}] * 300, previous_response_id=many["id"]
    )
    last = await turn(
        input=[{"role": "user", "content": "x"}] * 300, previous_response_id=more.json()["id"]
    )
    named = {"type": "item_reference", "id": first["output"][0]["id"]}
    repeated = await turn(input=[named] * 400)

    assert third.status_code == 413
    assert third.json()["error"]["param"] == "previous_response_id"
    assert "gateway.max_body_bytes" in third.json()["error"]["message"]
    assert [one.status_code for one in (more, last, repeated)] == [200] * 3
    even_more = await turn(input="x", previous_response_id=last.json()["id"])
    assert even_more.status_code == 413
    assert "gateway.max_body_items" in even_more.json()["error"]["message"]
    assert len(neuron.requests) == 6
    await until_held(bare, 0)


async def test_an_address_has_no_more_connections_than_it_may(bare: Fleet) -> None:
    await bare.start(connections_per_address=3)
    await bare.add_neuron("n1")
    async with Trickle(bare) as a, Trickle(bare), Trickle(bare):
        await asyncio.sleep(0.1)
        async with Trickle(bare) as fourth:
            assert await fourth.status() == 429
        a.writer.close()
        async with asyncio.timeout(60):
            while True:
                try:
                    assert (await bare.chat()).status_code in {200, 429}
                except httpx.TransportError:
                    continue
                if (await bare.chat()).status_code == 200:
                    break


async def test_a_body_of_very_many_items_is_refused_by_the_setting_s_name(bare: Fleet) -> None:
    await bare.start(max_body_items=1000)
    neuron = await bare.add_neuron("n1")
    turns = [{"role": "user", "content": "x"}]

    many = await bare.client.post("/v1/chat/completions", json=chat_body(messages=turns * 501))
    some = await bare.client.post("/v1/chat/completions", json=chat_body(messages=turns * 400))
    counted = await bare.client.post(
        "/v1/messages/count_tokens", json={"model": "tiny", "messages": turns * 501}
    )

    assert (many.status_code, some.status_code, counted.status_code) == (413, 200, 413)
    assert "gateway.max_body_items" in many.json()["error"]["message"]
    assert len(neuron.requests) == 1


async def test_a_bystander_waits_for_no_large_body(fleet: Fleet) -> None:
    await fleet.add_neuron("n1")
    turns = [{"role": "user", "content": "x"}] * 49_000
    body = json.dumps(chat_body(messages=turns)).encode()
    loop = asyncio.get_running_loop()
    pauses = []

    async def watch() -> None:
        while True:
            began = loop.time()
            await asyncio.sleep(0.01)
            pauses.append(loop.time() - began)

    watching = asyncio.create_task(watch())
    answers = [fleet.client.post("/v1/chat/completions", content=body) for _ in range(3)]
    assert [one.status_code for one in await asyncio.gather(*answers)] == [200] * 3
    watching.cancel()

    assert max(pauses) < 2  # 0.2 s here; the server, its client and the neuron share the loop


@pytest.mark.parametrize("data", ['{"a":' * 50_000, "[" * 100_000])
async def test_deep_bodies_are_refused(fleet: Fleet, data: str) -> None:
    assert (await fleet.client.post("/v1/responses", content=data)).status_code == 400


async def test_a_message_is_text_or_bytes(bare: Fleet) -> None:
    await bare.start()
    async with connected(bare.gateway.address) as one:
        await one.open("localhost")
        await one.say({"type": "nothing"})

        event = await one.event()
        assert isinstance(event, TextMessage)


async def test_a_request_runs_only_some_of_its_choices_at_once(fleet: Fleet) -> None:
    gate = asyncio.Event()
    neuron = await fleet.add_neuron("n1", Script([text("one"), text(" two")], gate=gate))
    asked = asyncio.create_task(fleet.chat(n=40))
    await neuron.until(lambda: neuron.active == 32)
    begun = len(neuron.requests)
    gate.set()
    answer = await asked

    assert (32, 40) == (begun, len(neuron.requests))
    assert ["one two"] * 40 == [one["message"]["content"] for one in answer.json()["choices"]]


async def test_a_prompt_that_no_context_holds_is_not_sent_to_its_neuron(bare: Fleet) -> None:
    await bare.start()
    neuron = await bare.add_neuron("n1")
    unknown, neuron.longest_token_bytes = neuron.longest_token_bytes, 1
    await bare.announce(neuron)
    endless = [{"role": "user", "content": "x" * 1_200_000}]

    async def count() -> httpx.Response:
        body = {"model": "tiny", "messages": endless}
        return await bare.client.post("/v1/messages/count_tokens", json=body)

    refused, not_counted = await bare.chat(messages=endless), await count()
    neuron.longest_token_bytes = unknown
    await bare.announce(neuron)
    served = await bare.chat(messages=endless)
    counted = await count()

    assert refused.status_code == 400
    error = refused.json()["error"]
    assert error["code"] == "context_length_exceeded"
    assert "2048 tokens" in error["message"]
    assert served.status_code == 200
    assert (not_counted.status_code, counted.status_code) == (400, 200)
    assert (len(neuron.requests), len(neuron.counted)) == (1, 1)

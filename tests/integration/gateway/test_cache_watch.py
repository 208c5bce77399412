"""A gateway that routes by what neurons tell of their caches."""

from __future__ import annotations

import asyncio
from typing import Any

from cortex.v1 import neuron_service_pb2 as neuron
from tests.doubles.scripted_neuron import ScriptedNeuron
from tests.integration.gateway.fleet import Fleet

HELLO = {"role": "user", "content": "hello " * 3_000}
TURN = [HELLO, {"role": "assistant", "content": "ok"}, {"role": "user", "content": "more"}]


async def telling(fleet: Fleet, name: str) -> ScriptedNeuron:
    made = await fleet.add_neuron(name)
    made.tells_cache = True
    await fleet.announce(made)
    return made


async def served_by(fleet: Fleet, messages: list[Any], *neurons: ScriptedNeuron) -> ScriptedNeuron:
    before = [len(one.requests) for one in neurons]
    assert (await fleet.chat(messages=messages)).status_code == 200
    (found,) = (
        one for one, count in zip(neurons, before, strict=True) if len(one.requests) > count
    )
    return found


async def until_told(fleet: Fleet, count: int) -> None:
    async with asyncio.timeout(60):
        while len(fleet.gateway.caches.holdings) != count:
            await asyncio.sleep(0.02)


async def test_a_conversation_goes_where_its_beginning_is_held(fleet: Fleet) -> None:
    neurons = [await telling(fleet, "n1"), await telling(fleet, "n2")]
    sent_to = await served_by(fleet, [HELLO], *neurons)
    other = next(one for one in neurons if one is not sent_to)
    held = neuron.HeldPrefix(digest=sent_to.requests[-1].marks.whole, tokens=3_000)
    other.cache_changes.put_nowait(
        neuron.CacheChange(instance_id=other.instance_id("tiny"), whole=True, held=[held])
    )
    await until_told(fleet, 1)

    assert await served_by(fleet, TURN, *neurons) is other


async def test_what_a_lost_neuron_held_is_forgotten(fleet: Fleet) -> None:
    neurons = [await telling(fleet, "n1"), await telling(fleet, "n2")]
    held = neuron.HeldPrefix(digest=b"d" * 16, tokens=3_000)
    neurons[1].cache_changes.put_nowait(
        neuron.CacheChange(instance_id=neurons[1].instance_id("tiny"), held=[held])
    )
    await until_told(fleet, 1)

    await neurons[1].stop()

    await until_told(fleet, 0)


async def test_a_model_with_one_instance_is_neither_followed_nor_named(fleet: Fleet) -> None:
    only = await telling(fleet, "n1")

    await served_by(fleet, [HELLO], only)

    assert not only.requests[-1].HasField("marks")


async def test_a_neuron_that_tells_of_instances_without_end_is_heard_of_some(fleet: Fleet) -> None:
    flooding = [await telling(fleet, "n1"), await telling(fleet, "n2")][0]
    for number in range(600):
        held = neuron.HeldPrefix(digest=number.to_bytes(16, "big"), tokens=3_000)
        flooding.cache_changes.put_nowait(neuron.CacheChange(instance_id=f"i{number}", held=[held]))
        if number < 300:  # that have gone make room for others
            flooding.cache_changes.put_nowait(
                neuron.CacheChange(instance_id=f"i{number}", whole=True)
            )
    flooding.cache_changes.put_nowait(
        neuron.CacheChange(instance_id="i599", held=[neuron.HeldPrefix(digest=b"e" * 16)])
    )
    flooding.cache_changes.put_nowait(
        neuron.CacheChange(instance_id="i300", held=[neuron.HeldPrefix(digest=b"f" * 16)])
    )

    await until_told(fleet, 256 + 1)

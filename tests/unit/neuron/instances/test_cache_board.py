"""What caches hold, as gateways follow it."""

from __future__ import annotations

import asyncio

import pytest

from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.changes import Changes
from services.neuron.engine_api.cache import CacheChanges, HeldPrefix
from services.neuron.instances.cache_board import MOST_HELD, CacheBoard
from services.neuron.instances.instances import Instance, Instances


def digest(number: int) -> bytes:
    return number.to_bytes(16, "little")


@pytest.fixture
def instances() -> Instances:
    made = Instances(Changes())
    for name in ("i", "j"):
        made.add(Instance(instance_id=name, spec=model.LoadSpec(model="m")))
    return made


def apply(known: dict[str, dict[bytes, int]], answer: neuron.WatchCacheResponse) -> None:
    for change in answer.changes:
        held = known.setdefault(change.instance_id, {})
        if change.whole:
            held.clear()
        for gone in change.dropped:
            held.pop(gone, None)
        held.update({one.digest: one.tokens for one in change.held})


async def test_a_follower_gets_all_and_then_differences(instances: Instances) -> None:
    board, known = CacheBoard(instances), dict[str, dict[bytes, int]]()
    first = tuple(HeldPrefix(digest(n), 100) for n in range(1_000))
    board.note("i", CacheChanges(held=first))
    following = board.follow()
    apply(known, await anext(following))

    board.note("i", CacheChanges(held=(HeldPrefix(digest(5), 200),), dropped=(digest(6),)))
    answer = await asyncio.wait_for(anext(following), 60)
    apply(known, answer)

    assert len(known["i"]) == 999
    assert known["i"][digest(5)] == 200
    assert answer.ByteSize() < 120  # two digests, whatever else is held
    await following.aclose()


async def test_a_cache_that_is_lost_is_told_as_empty(instances: Instances) -> None:
    board, known = CacheBoard(instances), dict[str, dict[bytes, int]]()
    board.note("i", CacheChanges(held=(HeldPrefix(digest(1), 100),)))
    board.note("j", CacheChanges(held=(HeldPrefix(digest(2), 100),)))
    following = board.follow()
    apply(known, await anext(following))

    board.forget("i")
    apply(known, await asyncio.wait_for(anext(following), 60))

    assert known == {"i": {}, "j": {digest(2): 100}}
    await following.aclose()


async def test_what_is_kept_of_an_instance_is_bounded(instances: Instances) -> None:
    board, known = CacheBoard(instances), dict[str, dict[bytes, int]]()
    for start in range(0, 3 * MOST_HELD, 500):
        news = CacheChanges(held=tuple(HeldPrefix(digest(start + n), 9) for n in range(500)))
        board.note("i", news)
    following = board.follow()

    answer = await anext(following)
    apply(known, answer)

    assert len(known["i"]) == MOST_HELD
    assert answer.ByteSize() < MOST_HELD * 32
    await following.aclose()


async def test_it_ends_with_the_neuron(instances: Instances) -> None:
    board = CacheBoard(instances)
    following = board.follow()
    await anext(following)

    board.close()

    async with asyncio.timeout(60):
        assert [one async for one in following][1:] == []

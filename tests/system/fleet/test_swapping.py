"""Three models, two neurons with room for one each: everybody is answered, nobody is cut."""

from __future__ import annotations

import asyncio
import random
import re

import pytest

from tests.system.fleet.clients import Clients, two_loaded
from tests.system.fleet.models import WORDS
from tests.system.fleet.processes import until


async def test_any_order_from_many_clients_is_answered_whole(pair, measured):
    """Twelve clients with six requests each, in orders of their own, long ones among them."""
    chance = random.Random(4)
    before = len(list(pair["registry"].lines("unload.ordered")))

    async def one_client(clients):
        order = list(WORDS) * 2
        chance.shuffle(order)
        return [await clients.stream(model, chance.choice((1, 40, 300, 1500))) for model in order]

    async with Clients(pair.url) as clients:
        many = await asyncio.gather(*(one_client(clients) for _ in range(12)))

    answers = [answer for answers in many for answer in answers]
    assert len(answers) == 72
    assert [str(answer) for answer in answers if not answer.is_whole] == []
    swaps = list(pair["registry"].lines("unload.ordered"))[before:]
    assert len(swaps) >= 3
    for swap in swaps:
        assert swap["why"] == "evicted"
        assert swap["model"] in WORDS
        assert swap["for_model"] in set(WORDS) - {swap["model"]}
        assert re.fullmatch(
            rf"lru: .+, last used [\d.]+ s ago; {swap['for_model']} has waited [\d.]+ s",
            swap["reason"],
        ), swap["reason"]
    measured(f"72 requests for three models in two rooms: {len(swaps)} swaps")


@pytest.mark.slow
async def test_a_swap_waits_for_streams_and_takes_no_new_ones(pair):
    """Both neurons are busy all the time; who waits long enough has one of them drained."""
    async with Clients(pair.url) as clients:
        *held, absent = await two_loaded(pair, clients)
        before = len(list(pair["registry"].lines("unload.ordered")))
        stop = asyncio.Event()
        answers = []

        async def keep_busy(model):
            while not stop.is_set():
                answers.append(await clients.stream(model, 1500))

        busy = [asyncio.create_task(keep_busy(model)) for model in held for _ in range(2)]
        await asyncio.to_thread(until, lambda: all(pair.in_flight()[name] for name in held))
        waited = await clients.stream(absent, 50)
        stop.set()
        await asyncio.gather(*busy)

    assert waited.is_whole, waited
    assert [str(answer) for answer in answers if not answer.is_whole] == []
    swaps = list(pair["registry"].lines("unload.ordered"))[before:]
    assert any(s["for_model"] == absent and "in flight" in s["reason"] for s in swaps), swaps

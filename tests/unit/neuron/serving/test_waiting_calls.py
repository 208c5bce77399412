"""Places of calls that wait are shared by principal."""

from __future__ import annotations

import asyncio

import pytest

from services.backplane.errors import FleetError, Reason
from services.neuron.serving.waiting_calls import WaitingCalls


class Callers:
    """Calls that wait until they are answered."""

    def __init__(self, most: int) -> None:
        self.calls = WaitingCalls(most)
        self.answered = asyncio.Event()

    async def _wait(self, principal: str) -> str:
        async with self.calls.one(principal):
            await self.answered.wait()
        return principal

    async def begin(self, *principals: str) -> list[asyncio.Task[str]]:
        tasks = [asyncio.create_task(self._wait(each)) for each in principals]
        await asyncio.sleep(0)
        return tasks

    async def end(self, tasks: list[asyncio.Task[str]]) -> list[str]:
        """What became of each: its principal where it was answered."""
        self.answered.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        return [told.reason.value if isinstance(told, FleetError) else str(told) for told in found]


async def test_the_newest_of_the_heaviest_makes_room() -> None:
    callers = Callers(4)

    tasks = await callers.begin("ann", "ann", "ann", "cid", "bob")

    assert await callers.end(tasks) == ["ann", "ann", "QUEUE_FULL", "cid", "bob"]


async def test_who_has_as_many_as_the_heaviest_is_refused() -> None:
    callers = Callers(4)

    tasks = await callers.begin("ann", "ann", "bob", "bob", "ann", "bob")

    assert await callers.end(tasks) == ["ann", "ann", "bob", "bob", "QUEUE_FULL", "QUEUE_FULL"]


async def test_places_are_free_again_behind_an_answer_and_a_caller_that_leaves() -> None:
    callers = Callers(1)
    (first,) = await callers.begin("ann")
    first.cancel()
    await asyncio.wait({first})

    (second,) = await callers.begin("ann")
    assert first.cancelled()
    assert await callers.end([second]) == ["ann"]
    assert await callers.end(await callers.begin("ann")) == ["ann"]


async def test_a_caller_that_leaves_while_it_makes_room_is_cancelled() -> None:
    callers = Callers(2)
    tasks = await callers.begin("ann", "ann")
    await callers.begin("bob")
    # the second of ann's has been told to make room, and its caller leaves at once
    again = await callers.begin("ann")
    assert await callers.end(again) == ["QUEUE_FULL"]

    with pytest.raises(FleetError) as raised:
        await tasks[1]
    assert raised.value.reason is Reason.QUEUE_FULL

"""What lives apart goes on while this loop is busy, and ends with its context."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator

from bench.chaos.apart import Apart


async def test_a_context_lives_in_the_other_loop_until_the_end() -> None:
    steps: list[str] = []

    @contextlib.asynccontextmanager
    async def one() -> AsyncIterator[threading.Thread]:
        steps.append("entered")
        yield threading.current_thread()
        steps.append(threading.current_thread().name)

    async with Apart.running() as apart:
        there = await apart.enter(one())
        assert there is not threading.current_thread()
        assert ["entered"] == steps
    assert ["entered", there.name] == steps
    assert not there.is_alive()


async def test_it_does_not_wait_for_this_loop() -> None:
    async with Apart.running() as apart:
        called = threading.Event()
        apart.call(called.set)
        deadline = time.monotonic() + 10
        while not called.is_set() and time.monotonic() < deadline:
            pass  # this loop runs nothing meanwhile

        assert called.is_set()
        await asyncio.sleep(0)

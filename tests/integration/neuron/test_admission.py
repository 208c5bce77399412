"""Who waits, in which order, and who is told at once that it cannot be: over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import Reason
from tests.doubles.neuron_host import NeuronHost, chat, refusal, running_neuron

BATCH = generation.WORK_CLASS_BATCH


@contextlib.asynccontextmanager
async def one_place(folder: pathlib.Path, **settings: Any) -> AsyncGenerator[NeuronHost]:
    """A neuron whose one model has one place, and room for four that wait."""
    async with running_neuron(folder, max_queued=4, **settings) as host:
        host.script("busy", words=("la", " li"), is_endless=True, context=20_000)
        await host.load("busy", max_sequences=1)
        yield host


@pytest.fixture
async def host(tmp_path: pathlib.Path) -> AsyncGenerator[NeuronHost]:
    async with one_place(tmp_path) as host:
        yield host


class Line:
    """Requests that wait, and the order in which they come to their end."""

    def __init__(self, host: NeuronHost) -> None:
        self._host = host
        self._tasks: list[asyncio.Task[None]] = []
        self.ended: list[str] = []

    async def hold(self) -> Any:
        """Takes the one place; cancel what comes back to free it."""
        call = self._host.stub.Generate(chat(model="busy"))
        await self._host.until_busy("busy")
        return call

    async def wait(self, name: str, **fields: Any) -> None:
        """Joins the line; returns when its place was told."""
        told = asyncio.Event()
        self._tasks.append(asyncio.create_task(self._run(name, told, fields)))
        await asyncio.wait_for(told.wait(), 60)

    async def over(self) -> list[str]:
        """Names in the order in which they ended."""
        await asyncio.gather(*self._tasks)
        return self.ended

    async def _run(self, name: str, told: asyncio.Event, fields: dict[str, Any]) -> None:
        rules = generation.StopRules(max_tokens=3)
        async for event in self._host.stub.Generate(chat(model="busy", stop=rules, **fields)):
            if event.HasField("queued"):
                told.set()
            if event.HasField("finished"):
                self.ended.append(name)


async def test_principals_take_turns(host):
    line = Line(host)
    holder = await line.hold()
    for number in range(3):
        await line.wait(f"greedy {number}", principal="greedy")
    await line.wait("modest", principal="modest")

    holder.cancel()

    # Both were never served; the one that came first goes first, and then they take turns.
    assert await line.over() == ["greedy 0", "modest", "greedy 1", "greedy 2"]


async def test_batch_work_yields(host):
    line = Line(host)
    holder = await line.hold()
    await line.wait("batch", work_class=BATCH)
    await line.wait("urgent")

    holder.cancel()

    assert await line.over() == ["urgent", "batch"]


async def test_a_line_that_is_full_refuses_at_once_with_numbers(host):
    line = Line(host)
    holder = await line.hold()
    for number in range(4):
        await line.wait(str(number))

    error = await refusal(host.stub.Generate(chat(model="busy")))

    assert error.reason is Reason.QUEUE_FULL
    assert error.facts["queued"] == "4"
    holder.cancel()
    await line.over()


async def test_a_wait_is_bounded(tmp_path):
    async with one_place(tmp_path, queue_timeout_seconds=0.3) as host:
        holder = await Line(host).hold()

        error = await refusal(host.stub.Generate(chat(model="busy")))

        assert error.reason is Reason.QUEUE_TIMEOUT
        holder.cancel()
        await host.until_idle("busy")


async def test_what_can_never_fit_does_not_wait(host):
    holder = await Line(host).hold()

    error = await refusal(host.stub.Generate(chat("x" * 30_000, model="busy")))

    assert error.reason is Reason.CONTEXT_TOO_LONG
    assert error.facts["max_context_tokens"] == "20000"
    assert int(error.facts["prompt_tokens"]) > 30_000
    holder.cancel()

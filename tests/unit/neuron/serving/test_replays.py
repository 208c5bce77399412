"""Streams that were told something elsewhere, read in slices."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from prometheus_client import CollectorRegistry

from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.neuron.engine_api.device_time import Charge
from services.neuron.engine_api.events import Delta, Event, Failed, Started
from services.neuron.engine_api.task import Task
from services.neuron.serving.delivery import Delivery
from services.neuron.serving.replays import ReplayGate, Replays
from services.neuron.supervisor.link import WorkerLink

LOST = FleetError(Reason.WORKER_LOST, "gone")


class Clock:
    """A millisecond passes whenever it is read."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


class Texts:
    """As much of a delivery as reads."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def replay(self, texts: Sequence[str]) -> None:
        self.read += texts
        if "broken" in texts:
            raise ValueError


class Listener:
    caller = "somebody"

    def __init__(self) -> None:
        self.told: list[object] = []

    def on_event(self, event: Event) -> None:
        self.told.append(event)

    def on_worker_lost(self, error: FleetError, *, is_alone: bool) -> None:
        assert is_alone
        self.told.append(error)

    def on_time(self, charge: Charge) -> None:
        self.told.append(charge)

    def fail(self, error: FleetError) -> None:
        self.told.append(error)


class Link:
    def submit(self, task: Task, listener: object) -> None:
        assert listener is not None


class Stream:
    """One gate, and what stands on both sides of it."""

    def __init__(self, replays: Replays) -> None:
        self.listener, self.texts = Listener(), Texts()
        self.gate = ReplayGate(self.listener, cast("Delivery", self.texts), replays)
        self.submit(1)

    def submit(self, task_id: int) -> None:
        task: Any = type("Task", (), {"task_id": task_id})
        self.gate.submit(cast("WorkerLink", Link()), task)

    @property
    def told(self) -> list[object]:
        return self.listener.told


def replays() -> Replays:
    return Replays(Faults(CollectorRegistry(), "test"), Clock())


def started(*texts: str) -> Started:
    return Started(1, 10, 0, resumed_texts=texts)


LONG = tuple(f"t{number}" for number in range(1_000))


async def turns_until(stream: Stream, count: int) -> int:
    """Turns of the loop until so much was told."""
    turns = 0
    while len(stream.told) < count:
        await asyncio.sleep(0)
        turns += 1
        assert turns < 10_000
    return turns


async def test_others_have_their_turn_between_slices_and_events_wait_in_order() -> None:
    stream = Stream(replays())
    events: list[Event] = [started(*LONG), Delta(1, "a", (1,)), Delta(1, "b", (2,))]

    for event in events:
        stream.gate.on_event(event)
    assert stream.told == []
    turns = await turns_until(stream, 3)

    assert stream.told == events
    assert stream.texts.read == list(LONG)
    assert turns > 20


async def test_a_hundred_streams_at_once_share_the_turns() -> None:
    shared = replays()
    streams = [Stream(shared) for _ in range(100)]
    for stream in streams:
        stream.gate.on_event(started(*LONG[:64]))

    turns = await turns_until(streams[-1], 1)

    assert turns >= 100
    assert all(len(stream.told) == 1 and len(stream.texts.read) == 64 for stream in streams)


async def test_a_stream_that_was_told_nothing_waits_for_nobody() -> None:
    stream = Stream(replays())

    stream.gate.on_event(started())

    assert stream.told == [started()]


async def test_what_a_dead_worker_had_made_meanwhile_is_made_again_by_the_next() -> None:
    stream = Stream(replays())
    first, again = started(*LONG), Started(2, 10, 0, resumed_texts=LONG)
    stream.gate.on_event(first)
    stream.gate.on_event(Delta(1, "lost", (1,)))

    stream.gate.on_worker_lost(LOST, is_alone=True)
    stream.submit(2)
    stream.gate.on_event(again)
    stream.gate.on_event(Delta(2, "made", (1,)))
    await turns_until(stream, 4)

    assert stream.told == [LOST, first, again, Delta(2, "made", (1,))]
    assert stream.texts.read == list(LONG)


async def test_a_stream_that_ends_meanwhile_is_told_nothing_more() -> None:
    shared = replays()
    stream, next_one = Stream(shared), Stream(shared)
    stream.gate.on_event(started(*LONG))
    stream.gate.on_event(Delta(1, "a", (1,)))
    next_one.gate.on_event(started("t"))

    stream.gate.close()
    await turns_until(next_one, 1)

    assert stream.told == []


async def test_a_failure_is_told_at_once() -> None:
    stream = Stream(replays())
    stream.gate.on_event(started(*LONG))
    failed = Failed(1, Reason.INTERNAL.value, "no")

    stream.gate.on_event(failed)

    assert stream.told == [failed]


async def test_texts_that_cannot_be_read_end_their_stream_alone() -> None:
    shared = replays()
    stream, next_one = Stream(shared), Stream(shared)
    stream.gate.on_event(started("broken"))
    next_one.gate.on_event(started("t"))

    await turns_until(next_one, 1)

    (error,) = stream.told
    assert isinstance(error, FleetError)
    assert error.reason is Reason.INTERNAL
    assert next_one.told == [started("t")]


async def test_events_behind_one_that_made_another_task_do_not_count() -> None:
    stream = Stream(replays())
    budget_ends = Delta(1, "too long", (1,))

    def on_event(event: Event) -> None:
        stream.told.append(event)
        if event is budget_ends:
            stream.submit(2)

    stream.listener.on_event = on_event  # type: ignore[method-assign]
    for event in (started("t"), budget_ends, Delta(1, "late", (2,))):
        stream.gate.on_event(event)
    await turns_until(stream, 2)
    stream.gate.on_event(Delta(2, "next", (3,)))

    assert stream.told == [started("t"), budget_ends, Delta(2, "next", (3,))]


async def test_a_stream_that_cannot_even_be_failed_holds_up_no_other() -> None:
    class Deaf(Listener):
        def fail(self, error: FleetError) -> None:
            super().fail(error)
            raise ValueError

    shared = replays()
    broken, other = Stream(shared), Stream(shared)
    broken.gate = ReplayGate(Deaf(), cast("Delivery", broken.texts), shared)
    broken.submit(1)
    raised: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: raised.append(told))

    broken.gate.on_event(started("broken"))
    other.gate.on_event(started("a"))
    await turns_until(other, 1)

    assert other.told == [started("a")]
    assert len(raised) == 1

from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Sequence

from services.neuron.devices import watch as device_watch
from services.neuron.devices.watch import DeviceWatch
from services.neuron.devices.xid_faults import DeviceFault

PAGE_FAULT = DeviceFault("GPU-0", 31)
LOST = DeviceFault("GPU-1", 79)


class Reader:
    """A driver that says what a test says, and may not answer."""

    def __init__(self, *faults: DeviceFault) -> None:
        self.waiting = list(faults)
        self.holds = 0
        self.answers = threading.Event()
        self.answers.set()

    def faults(self) -> list[DeviceFault]:
        self.answers.wait(30)
        found, self.waiting = self.waiting, []
        return found

    def is_held(self, device_ids: Sequence[str], pids: Collection[int]) -> bool:
        self.holds -= 1
        return self.holds >= 0


async def test_a_death_is_explained_by_what_its_own_devices_had():
    watch = DeviceWatch(Reader(PAGE_FAULT, LOST))

    assert "Xid 31" in await watch.cause(["GPU-0"])
    assert "Xid 79" not in await watch.cause(["GPU-0"])
    assert await watch.cause(["cpu"]) == ""
    both = await watch.cause(["GPU-0", "GPU-1"])
    assert "Xid 31" in both
    assert "Xid 79" in both


async def test_old_events_explain_nothing(monkeypatch):
    watch = DeviceWatch(Reader(PAGE_FAULT))
    monkeypatch.setattr(device_watch, "_RECENT_SECONDS", 0.0)

    assert await watch.cause(["GPU-0"]) == ""


async def test_a_driver_that_does_not_answer_delays_nothing_for_long(monkeypatch):
    reader = Reader(PAGE_FAULT)
    reader.answers.clear()
    monkeypatch.setattr(device_watch, "_ANSWER_SECONDS", 0.05)

    assert await DeviceWatch(reader).cause(["GPU-0"]) == ""
    reader.answers.set()


async def test_only_lasting_faults_are_told_on():
    told: list[DeviceFault] = []
    watch = DeviceWatch(Reader(PAGE_FAULT, LOST), on_lasting=told.append)

    await watch.look()

    assert told == [LOST]


async def test_it_waits_until_the_driver_shows_no_memory_of_the_dead():
    reader = Reader()
    reader.holds = 2

    await DeviceWatch(reader).vacated(["GPU-0"], [1])

    assert reader.holds == -1


async def test_memory_that_never_comes_back_is_not_waited_for_for_ever(monkeypatch):
    reader = Reader()
    reader.holds = 1 << 30
    monkeypatch.setattr(device_watch, "_VACATE_SECONDS", 0.05)

    async with asyncio.timeout(60):
        await DeviceWatch(reader).vacated(["GPU-0"], [1])

"""Reads what moved streams were told before, elsewhere, a little at a time.

A neuron that dies may leave a hundred long answers to one other neuron. What they have so far is
read by parsers on the event loop, which must go on serving everybody else.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Callable
from typing import Final

from typing_extensions import override

from services.backplane.errors import FleetError
from services.backplane.process.faults import Faults
from services.neuron.engine_api.device_time import Charge
from services.neuron.engine_api.events import Event, Failed, Started
from services.neuron.engine_api.task import Task
from services.neuron.serving.delivery import Delivery
from services.neuron.supervisor.link import WorkerLink
from services.neuron.supervisor.task_listener import TaskListener

_SLICE_SECONDS: Final = 0.002
_SLICE_TEXTS: Final = 16
"""Are read before the clock is looked at."""


class Replays:
    """All that are to be read on this neuron: one slice of one of them in each turn of the loop."""

    def __init__(self, faults: Faults, clock: Callable[[], float] = time.monotonic) -> None:
        """Reads nothing yet.

        Args:
            faults: told of exceptions.
            clock: seconds.
        """
        self._faults = faults
        self._clock = clock
        self._waiting: collections.deque[ReplayGate] = collections.deque()

    def add(self, gate: ReplayGate) -> None:
        """Queues one, behind those that came before."""
        self._waiting.append(gate)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        gate = self._waiting[0]
        is_done = True
        try:
            until = self._clock() + _SLICE_SECONDS
            while not (is_done := gate.read(_SLICE_TEXTS)) and self._clock() < until:
                pass
        except Exception as error:  # noqa: BLE001 - it concerns this stream alone
            is_done = True
            gate.fail(self._faults.note("replay", error))
        finally:  # others go on whatever became of this one, even if it cannot be ended
            if is_done:
                self._waiting.popleft()
            if self._waiting:
                asyncio.get_running_loop().call_soon(self._turn)


class ReplayGate(TaskListener):
    """Stands before the listener of one generation: its events wait until the texts are read."""

    def __init__(self, listener: TaskListener, delivery: Delivery, replays: Replays) -> None:
        """Holds nothing yet.

        Args:
            listener: gets the events, in their order.
            delivery: reads the texts.
            replays: says when.
        """
        self._listener = listener
        self._delivery = delivery
        self._replays = replays
        self._task_id = 0
        self._texts: tuple[str, ...] | None = None
        self._read = 0
        self._held: list[Event] = []
        self._is_closed = False
        self.caller = listener.caller

    @property
    def _is_reading(self) -> bool:
        return self._texts is not None and self._read < len(self._texts)

    def submit(self, link: WorkerLink, task: Task) -> None:
        """Queues a task; events of one before it count no more.

        Raises:
            FleetError: WORKER_LOST, the process has died.
        """
        link.submit(task, self)
        self._task_id = task.task_id

    def close(self) -> None:
        """Nobody wants any more events."""
        self._is_closed = True
        self._texts, self._held = (), []

    @override
    def on_event(self, event: Event) -> None:
        if isinstance(event, Started) and self._texts is None:
            self._texts = event.resumed_texts
            if self._texts:
                self._replays.add(self)
        # Nothing that waits is of use to who is told of a failure.
        if self._is_reading and not isinstance(event, Failed):
            self._held.append(event)
        else:
            self._listener.on_event(event)

    @override
    def on_worker_lost(self, error: FleetError, *, is_alone: bool) -> None:
        # What comes behind the texts is made again, by the next worker.
        self._held = [event for event in self._held if isinstance(event, Started)]
        self._listener.on_worker_lost(error, is_alone=is_alone)

    @override
    def on_time(self, charge: Charge) -> None:
        self._listener.on_time(charge)

    @override
    def fail(self, error: FleetError) -> None:
        self._listener.fail(error)

    def read(self, count: int) -> bool:
        """Reads the next texts. Returns: True once all are read and held events passed on."""
        if self._is_reading:
            assert self._texts is not None
            self._delivery.replay(self._texts[self._read : self._read + count])
            self._read += count
        if self._is_reading:
            return False
        self._texts = ()
        held, self._held = self._held, []
        task_id = self._task_id
        for event in held:
            # One may end the generation, or have it go on as another task.
            if self._is_closed or task_id != self._task_id:
                break
            self._listener.on_event(event)
        return True

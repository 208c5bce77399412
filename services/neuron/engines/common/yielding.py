"""Suspending batch streams for other work and resuming them: the rules, for every engine.

Batch streams give their place to other work, and streams of one principal to another that has less.
What becomes of a stream's cache meanwhile is the engine's.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Final, Generic, Protocol, TypeVar

from services.neuron.engine_api.task import Task, WorkClass
from services.neuron.engines.common.admission import MOST_PASSED, Waiting
from services.neuron.engines.common.task_queue import TaskQueue

LEAST_TOKENS: Final = 8
"""A stream reads at least so many tokens in its place before it may lose it: it gets on."""
MOST_SECONDS: Final = 60.0
"""A stream that waited so long has the next place, whoever else waits."""
PATIENCE_SECONDS: Final = 1.0
"""So long a request waits for a place to become free before another principal's stream yields:
where answers are short, no cache is copied."""
LONG_SECONDS: Final = 30.0
"""A principal without any place that waited so long gets one, were it the only one of another."""


class RunningStream(Protocol):
    """A running stream, as the rules need it."""

    @property
    def task(self) -> Task:
        """What was asked for."""
        ...

    @property
    def started_at(self) -> float | None:
        """When it was given a place first, monotonic seconds; None: it had none yet."""
        ...

    @property
    def held_tokens(self) -> int:
        """How many tokens its cache holds."""
        ...

    @property
    def cached_tokens(self) -> int:
        """How many it held when it began."""
        ...

    @property
    def may_pause(self) -> bool:
        """True if it can be suspended: not at its end, and able to go on later."""
        ...


Stream = TypeVar("Stream", bound=RunningStream)


@dataclasses.dataclass(slots=True)
class _Yielded(Generic[Stream]):
    """A stream that gave its place.

    Attributes:
        passed: how many requests were admitted since.
        since: when it lost its place, monotonic seconds.
    """

    stream: Stream
    passed: int = 0
    since: float = dataclasses.field(default_factory=time.monotonic)


class Yielding(Generic[Stream]):
    """The suspended streams of one model, and the choice of who is suspended or resumed next.

    Bound: as many streams as there are places.

    Args:
        queue: who waits.
        places: how many streams run together.
    """

    def __init__(self, queue: TaskQueue[Any], *, places: int) -> None:
        self._queue = queue
        self._places = places
        self._yielded: list[_Yielded[Stream]] = []
        self._back_at: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._yielded)

    def __iter__(self) -> Iterator[Stream]:
        return (one.stream for one in self._yielded)

    @property
    def is_due(self) -> bool:
        """True if the next free place must go to the first suspended stream: it waited enough."""
        if not self._yielded:
            return False
        first = self._yielded[0]
        return first.passed >= MOST_PASSED or time.monotonic() - first.since >= MOST_SECONDS

    @property
    def first(self) -> Stream | None:
        """The stream that has been suspended longest, or None."""
        return self._yielded[0].stream if self._yielded else None

    def may_return(self, running: Collection[Stream]) -> bool:
        """True if the first suspended stream would get a place now."""
        first = self.first
        if first is None or len(running) >= self._places:
            return False
        tasks = [stream.task for stream in running]
        waiting = self._queue.peek(tasks)
        if not self.is_due and waiting is not None and _goes_first(waiting, first.task, tasks):
            return False
        is_batch = first.task.work_class is WorkClass.BATCH
        return not is_batch or self._queue.may_take_batch(tasks)

    def found(self, running: Collection[Stream], now: float) -> tuple[Waiting[Any], Stream] | None:
        """A waiting task and the running stream to suspend for it; None where there is no pair."""
        first = self._queue.peek(stream.task for stream in running)
        if first is None:
            return None
        candidates = {first.principal: first}
        for waiting in self._queue.waiting():
            candidates.setdefault(waiting.principal, waiting)
        for waiting in candidates.values():
            victim = self.victim(running, waiting, now)
            if victim is not None:
                return waiting, victim
        return None

    def victim(
        self, running: Collection[Stream], waiting: Waiting[Any], now: float
    ) -> Stream | None:
        """The running stream that would be suspended for a waiting task, or None.

        1. A batch stream, the one that began last, gives it to work of the other classes.
        2. The principal that has most places gives one, of the same class or a lower one, to a
           principal that then has no more than it, once that has waited for `PATIENCE_SECONDS`;
           to one that has none after `LONG_SECONDS` in any case.
        """
        is_full = len(self._yielded) >= self._places
        if self.is_due or is_full or waiting.work_class is WorkClass.BATCH:
            return None
        batch = [one for one in running if one.task.work_class is WorkClass.BATCH]
        found = max(filter(self._may_yield, batch), key=_started_at, default=None)
        waited = now - waiting.since
        if found is not None or waited < PATIENCE_SECONDS:
            return found
        held = collections.Counter(one.task.principal for one in running)
        heaviest = max(held, key=held.__getitem__, default=waiting.principal)
        own = held[waiting.principal]
        has_long_none = own == 0 and waited >= LONG_SECONDS
        if held[heaviest] - 1 < own + 1 and not has_long_none:
            return None
        able = [
            one
            for one in running
            if one.task.principal == heaviest
            and one.task.work_class >= waiting.work_class
            and self._may_yield(one)
        ]
        return max(able, key=_started_at, default=None)

    def give_up(self, stream: Stream) -> None:
        """Records that a stream was suspended."""
        self._yielded.append(_Yielded(stream))

    def give_back(self) -> Stream:
        """Records that the first suspended stream runs again."""
        stream = self._yielded.pop(0).stream
        self._back_at[stream.task.task_id] = stream.held_tokens
        return stream

    def spare(self, stream: Stream) -> None:
        """Records that a stream cannot be suspended; it is not asked again."""
        self._back_at[stream.task.task_id] = math.inf

    def note_admission(self) -> None:
        """Counts a request that was admitted before the suspended streams."""
        for one in self._yielded:
            one.passed += 1

    def find(self, task_id: int) -> Stream | None:
        """The suspended stream of a task, or None."""
        return next((one for one in self if one.task.task_id == task_id), None)

    def forget(self, stream: Stream) -> None:
        """Drops a stream whose task has ended, suspended or not."""
        self._yielded = [one for one in self._yielded if one.stream is not stream]
        self._back_at.pop(stream.task.task_id, None)

    def _may_yield(self, stream: Stream) -> bool:
        """It is not at its end, and has got on in its place."""
        if not stream.may_pause:
            return False
        had = self._back_at.get(stream.task.task_id, stream.cached_tokens)
        return stream.held_tokens - had >= LEAST_TOKENS


def _goes_first(waiting: Waiting[Any], yielded: Task, placed: Sequence[Task]) -> bool:
    """Whether a request goes before a stream that gave its place.

    That is one of a higher class, or of a principal that has fewer places.
    """
    if yielded.work_class is not waiting.work_class:
        return yielded.work_class > waiting.work_class
    held = collections.Counter(task.principal for task in placed)
    return held[waiting.principal] < held[yielded.principal]


def _started_at(stream: RunningStream) -> float:
    return stream.started_at or 0.0

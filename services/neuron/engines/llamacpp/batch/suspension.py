"""Streams that gave their place to others: their cache is kept in the host's memory.

Batch streams give it to other work, and streams of one principal to another that has less.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import time
from collections.abc import Collection, Iterator
from typing import Final

from services.neuron.engine_api.task import Task, WorkClass
from services.neuron.engines.common.admission import MOST_PASSED, Waiting
from services.neuron.engines.llamacpp.batch.context import Context
from services.neuron.engines.llamacpp.batch.intake import Prepared
from services.neuron.engines.llamacpp.batch.slots import CacheSlot
from services.neuron.engines.llamacpp.batch.streams import Stream

LEAST_TOKENS: Final = 8
"""A stream reads at least so many tokens in its place before it may lose it: it gets on."""
MOST_SECONDS: Final = 60.0
"""A stream that waited so long has the next place, whoever else waits."""
PATIENCE_SECONDS: Final = 1.0
"""So long a request waits for a place to become free before another principal's stream yields:
where answers are short, no cache is copied."""
LONG_SECONDS: Final = 30.0
"""A principal without any place that waited so long gets one, were it the only one of another."""
MOST_BYTES: Final = 1 << 30
"""Of all states of one model together."""


@dataclasses.dataclass(slots=True)
class _Suspended:
    """A stream without a place.

    Attributes:
        tokens: what its sequence holds.
        state: the sequence itself.
        passed: how many requests were admitted since.
        since: when it lost its place, monotonic seconds.
    """

    stream: Stream
    tokens: list[int]
    state: bytes
    passed: int = 0
    since: float = dataclasses.field(default_factory=time.monotonic)


class Suspension:
    """Takes places from streams, and gives them back.

    Bounds: `MOST_BYTES`, and as many streams as there are places.
    """

    def __init__(self, context: Context, *, places: int, most_bytes: int = MOST_BYTES) -> None:
        self._context = context
        self._places = places
        self._most_bytes = most_bytes
        self._held: list[_Suspended] = []
        self._resumed_at: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Stream]:
        return (one.stream for one in self._held)

    @property
    def is_due(self) -> bool:
        """True if the first has been passed often or has waited long: the next place is its."""
        if not self._held:
            return False
        first = self._held[0]
        return first.passed >= MOST_PASSED or time.monotonic() - first.since >= MOST_SECONDS

    @property
    def first(self) -> Task | None:
        """Of the stream that has waited longest, or None."""
        return self._held[0].stream.task if self._held else None

    def victim(
        self, running: Collection[Stream], waiting: Waiting[Prepared], now: float
    ) -> Stream | None:
        """The stream that would give its place to what waits, or None.

        1. A batch stream, the one that began last, gives it to work of the other classes.
        2. The principal that has most places gives one, of the same class or a lower one, to a
           principal that then has no more than it, once that has waited for `PATIENCE_SECONDS`;
           to one that has none after `LONG_SECONDS` in any case.
        """
        if self.is_due or len(self._held) >= self._places or waiting.work_class is WorkClass.BATCH:
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

    def suspend(self, stream: Stream) -> bool:
        """Keeps a stream's sequence; its slot is free then. False: there is no room for it."""
        room = self._most_bytes - sum(len(one.state) for one in self._held)
        state = self._context.save(stream.slot.index, most_bytes=room)
        if state is None:
            self._resumed_at[stream.task.task_id] = math.inf  # not to be tried again
            return False
        self._held.append(_Suspended(stream, list(stream.slot.tokens), state))
        stream.slot.is_busy = False
        return True

    def note_admission(self) -> None:
        """Counts a request that was admitted while batch streams are suspended."""
        for one in self._held:
            one.passed += 1

    def resume(self, slot: CacheSlot) -> tuple[Stream, bool]:
        """Gives a free slot to the stream that has waited longest.

        Returns: the stream, and whether its sequence is there again; otherwise it cannot go on.
        """
        one = self._held.pop(0)
        is_back = self._context.restore(slot.index, one.state)
        slot.cut(0)
        slot.tokens = one.tokens if is_back else []
        slot.scope = one.stream.task.principal
        one.stream.slot = slot
        self._resumed_at[one.stream.task.task_id] = len(one.tokens)
        return one.stream, is_back

    def find(self, task_id: int) -> Stream | None:
        """The stream of a task that is suspended, or None."""
        return next((one for one in self if one.task.task_id == task_id), None)

    def forget(self, stream: Stream) -> None:
        """Its task has ended, wherever it was."""
        self._held = [one for one in self._held if one.stream is not stream]
        self._resumed_at.pop(stream.task.task_id, None)

    def _may_yield(self, stream: Stream) -> bool:
        """It is not at its end, and has got on in its place."""
        if stream.is_done or stream.transcript.reason is not None:
            return False
        return len(stream.slot.tokens) - self._began_at(stream) >= LEAST_TOKENS

    def _began_at(self, stream: Stream) -> float:
        """How many tokens its slot held when it got it."""
        return self._resumed_at.get(stream.task.task_id, stream.cached_tokens)


def _started_at(stream: Stream) -> float:
    return stream.started_at

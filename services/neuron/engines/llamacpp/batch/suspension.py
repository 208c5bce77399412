"""Batch streams that gave their place to others: their cache is kept in the host's memory."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Iterator
from typing import Final

from services.neuron.engine_api.task import WorkClass
from services.neuron.engines.common.admission import MOST_PASSED
from services.neuron.engines.llamacpp.batch.context import Context
from services.neuron.engines.llamacpp.batch.slots import CacheSlot
from services.neuron.engines.llamacpp.batch.streams import Stream

LEAST_TOKENS: Final = 8
"""A stream reads at least so many tokens in its place before it may lose it: it gets on."""
MOST_SECONDS: Final = 60.0
"""A stream that waited so long has the next place, whoever else waits."""
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
    """Takes places from batch streams, and gives them back.

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

    def victim(self, running: Iterable[Stream]) -> Stream | None:
        """The batch stream that would give its place now: the one that began last; or None."""
        if self.is_due or len(self._held) >= self._places:
            return None
        able = [
            stream
            for stream in running
            if stream.task.work_class is WorkClass.BATCH
            and not stream.is_done
            and stream.transcript.reason is None
            and len(stream.slot.tokens) - self._began_at(stream) >= LEAST_TOKENS
        ]
        return max(able, key=lambda stream: stream.started_at, default=None)

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
        """Counts a request that got a place while these wait."""
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

    def _began_at(self, stream: Stream) -> float:
        """How many tokens its slot held when it got it."""
        return self._resumed_at.get(stream.task.task_id, stream.cached_tokens)

"""Streams that gave their place to others: their cache is kept in the host's memory."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from typing_extensions import override

from services.neuron.engines.common.marks import Mark
from services.neuron.engines.common.task_queue import TaskQueue
from services.neuron.engines.common.yielding import Yielding
from services.neuron.engines.llamacpp.batch.context import Context
from services.neuron.engines.llamacpp.batch.slots import CacheSlot
from services.neuron.engines.llamacpp.batch.streams import Stream

MOST_BYTES: Final = 1 << 30
"""Of all states of one model together."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Suspended:
    """The cache of a stream without a place.

    Attributes:
        tokens: what its sequence holds.
        state: the sequence itself.
        marks: see `CacheSlot`.
    """

    tokens: list[int]
    state: bytes
    marks: list[Mark]


class Suspension(Yielding[Stream]):
    """Takes places from streams, and gives them back.

    Bounds: `MOST_BYTES`, and as many streams as there are places.
    """

    def __init__(
        self,
        context: Context,
        queue: TaskQueue[Any],
        *,
        places: int,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        super().__init__(queue, places=places)
        self._context = context
        self._most_bytes = most_bytes
        self._states: dict[int, _Suspended] = {}

    def suspend(self, stream: Stream) -> bool:
        """Keeps a stream's sequence; its slot is free then. False: there is no room for it."""
        room = self._most_bytes - sum(len(one.state) for one in self._states.values())
        state = self._context.save(stream.slot.index, most_bytes=room)
        if state is None:
            self.spare(stream)
            return False
        slot = stream.slot
        kept = _Suspended(list(slot.tokens), state, slot.marks)
        self._states[stream.task.task_id] = kept
        self.give_up(stream)
        slot.is_busy = False
        return True

    def resume(self, slot: CacheSlot) -> tuple[Stream, bool]:
        """Gives a free slot to the stream that has waited longest.

        Returns: the stream, and whether its sequence is there again; otherwise it cannot go on.
        """
        stream = self.first
        assert stream is not None
        kept = self._states.pop(stream.task.task_id)
        is_back = self._context.restore(slot.index, kept.state)
        slot.cut(0)
        slot.tokens, slot.marks = (kept.tokens, kept.marks) if is_back else ([], [])
        slot.scope = stream.task.principal
        stream.slot = slot
        return self.give_back(), is_back

    @override
    def forget(self, stream: Stream) -> None:
        super().forget(stream)
        self._states.pop(stream.task.task_id, None)

"""Who runs next: a bounded queue that is fair by principal and favours interactive work.

Pure: time is passed in (monotonic seconds), nothing is awaited.
"""

from __future__ import annotations

import collections
import dataclasses
from collections import deque
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")

INTERACTIVE_PER_BATCH: Final = 4
"""While both wait, one batch item goes after so many interactive ones: it cannot starve."""
_WEIGHT: Final = 0.2
"""Share of the newest task in the average of durations."""
_LEAST_SECONDS: Final = 1.0
"""Shortest wait that is ever told."""


class QueueFullError(Exception):
    """The queue holds as many as it may."""


@dataclasses.dataclass(frozen=True, slots=True)
class Waiting(Generic[Item]):
    """An item in the queue.

    Attributes:
        key: names the item, unique among those that wait.
        item: what waits.
        principal: whose turn it takes.
        is_batch: yields to interactive items.
        since: when it came, monotonic seconds.
    """

    key: int
    item: Item
    principal: str
    is_batch: bool
    since: float


class AdmissionQueue(Generic[Item]):
    """Items that wait, in two classes (interactive and batch); `pop` says who goes next.

    Bound: `max_queued` items in all. Nothing leaves except by `pop`, `remove`, `expire`, or by a
    `push` for which it has to make room, so a cancelled item cannot leak its place.
    """

    def __init__(self, *, max_queued: int, timeout_seconds: float) -> None:
        """Makes an empty queue.

        Args:
            max_queued: most items that wait.
            timeout_seconds: longest wait.
        """
        self._max_queued = max_queued
        self._timeout_seconds = timeout_seconds
        self._interactive: deque[Waiting[Item]] = deque()
        self._batch: deque[Waiting[Item]] = deque()
        self._last_turn: dict[str, int] = {}
        self._turns = 0
        self._interactive_run = 0

    def __len__(self) -> int:
        return len(self._interactive) + len(self._batch)

    def push(
        self, item: Item, *, key: int, principal: str, is_batch: bool, now: float
    ) -> Waiting[Item] | None:
        """Adds an item behind its principal's others.

        Returns: what had to make room for it: in a full queue the newest item of the principal
            that has most, as long as that principal still has as many as this one then.

        Raises:
            QueueFullError: `max_queued` items wait already, and its principal has its share.
        """
        displaced = self._make_room(principal) if len(self) >= self._max_queued else None
        waiting = Waiting(key, item, principal, is_batch, now)
        (self._batch if is_batch else self._interactive).append(waiting)
        return displaced

    def _make_room(self, principal: str) -> Waiting[Item]:
        everything = (*self._interactive, *self._batch)
        held = collections.Counter(waiting.principal for waiting in everything)
        heaviest = max(held, key=held.__getitem__, default=principal)
        if held[heaviest] - 1 < held[principal] + 1:
            raise QueueFullError
        # Of equally new ones a batch item, which stands behind.
        newest = max(
            enumerate(waiting for waiting in everything if waiting.principal == heaviest),
            key=lambda numbered: (numbered[1].since, numbered[0]),
        )[1]
        self.remove(newest.key)
        return newest

    def peek(self) -> Waiting[Item] | None:
        """What `pop` would give, or None."""
        line = self._next_line()
        return None if line is None else self._next_of(line)

    def pop(self) -> Waiting[Item] | None:
        """Takes the next item out, or None where nobody waits.

        1. Interactive items go before batch items; but after `INTERACTIVE_PER_BATCH` interactive
           ones in a row, one batch item goes if any waits.
        2. Within a class the principal goes whose last turn is longest ago; one that never had a
           turn goes first.
        3. Within a principal, first come, first served; so too between principals of equal rank.
        """
        line = self._next_line()
        if line is None:
            return None
        chosen = self._next_of(line)
        line.remove(chosen)
        self._interactive_run = 0 if chosen.is_batch else self._interactive_run + 1
        self._turns += 1
        self._last_turn[chosen.principal] = self._turns
        self._forget_idle_principals()
        return chosen

    def get(self, key: int) -> Item | None:
        """The item that waits under this key, or None."""
        return next((w.item for w in (*self._interactive, *self._batch) if w.key == key), None)

    def remove(self, key: int) -> bool:
        """Takes an item out of turn; False where none has this key."""
        for line in (self._interactive, self._batch):
            for waiting in line:
                if waiting.key == key:
                    line.remove(waiting)
                    return True
        return False

    def expire(self, now: float) -> list[Waiting[Item]]:
        """Takes out all that have waited too long."""
        late: list[Waiting[Item]] = []
        for line in (self._interactive, self._batch):
            # A line is in order of arrival, so the first that is in time ends the search.
            while line and now - line[0].since >= self._timeout_seconds:
                late.append(line.popleft())
        return late

    def order(self) -> list[int]:
        """Keys in the order in which they will be popped, if nothing more comes."""
        trial = AdmissionQueue[Item](max_queued=0, timeout_seconds=0)
        trial._interactive = self._interactive.copy()
        trial._batch = self._batch.copy()
        trial._last_turn = self._last_turn.copy()
        trial._turns, trial._interactive_run = self._turns, self._interactive_run
        keys: list[int] = []
        while (waiting := trial.pop()) is not None:
            keys.append(waiting.key)
        return keys

    def _next_line(self) -> deque[Waiting[Item]] | None:
        is_batch_turn = self._interactive_run >= INTERACTIVE_PER_BATCH or not self._interactive
        if is_batch_turn and self._batch:
            return self._batch
        return self._interactive or None

    def _next_of(self, line: deque[Waiting[Item]]) -> Waiting[Item]:
        """The oldest item of the principal whose last turn is longest ago."""
        return min(line, key=lambda waiting: self._last_turn.get(waiting.principal, 0))

    def _forget_idle_principals(self) -> None:
        if len(self._last_turn) > 4 * self._max_queued + 64:
            present = {waiting.principal for waiting in (*self._interactive, *self._batch)}
            self._last_turn = {p: t for p, t in self._last_turn.items() if p in present}


class Pace:
    """Estimates waiting times from a moving average of how long tasks ran."""

    def __init__(self, places: int) -> None:
        """Knows nothing yet.

        Args:
            places: how many tasks run together.
        """
        self._places = places
        self._seconds: float | None = None

    def note(self, seconds: float) -> None:
        """Counts a task that ended well after so many seconds."""
        before = seconds if self._seconds is None else self._seconds
        self._seconds = before + _WEIGHT * (seconds - before)

    def seconds_until(self, position: int) -> float | None:
        """Seconds until a task with so many before it may start; None while none has ended."""
        if self._seconds is None:
            return None
        return max(_LEAST_SECONDS, self._seconds * (position + 1) / self._places)

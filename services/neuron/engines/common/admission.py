"""Who runs next: a bounded queue in three classes, fair by principal within each.

Pure: time is passed in (monotonic seconds), nothing is awaited.
"""

from __future__ import annotations

import collections
import dataclasses
from collections import deque
from collections.abc import Iterator
from typing import Final, Generic, TypeVar

from services.neuron.engine_api.task import WorkClass

Item = TypeVar("Item")

MOST_PASSED: Final = 4
"""So many items of higher classes go before one of a lower class that waits: it cannot starve."""
_OWN_SHARE: Final = 4
"""Of this many queued items one may be of a lower class without making room for a higher one."""
_WEIGHT: Final = 0.2
"""Share of the newest task in the average of durations."""
_LEAST_SECONDS: Final = 1.0
"""Shortest wait that is ever told."""


class QueueFullError(Exception):
    """`max_queued` items wait already, and none has to make room."""


@dataclasses.dataclass(frozen=True, slots=True)
class Waiting(Generic[Item]):
    """An item in the queue.

    Attributes:
        key: names the item, unique among those that wait.
        item: what waits.
        principal: whose turn it takes.
        work_class: items of a lower class yield to it.
        since: when it came, monotonic seconds.
    """

    key: int
    item: Item
    principal: str
    work_class: WorkClass
    since: float


class AdmissionQueue(Generic[Item]):
    """Items that wait, a line for each class; `pop` says who goes next.

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
        self._lines: dict[WorkClass, deque[Waiting[Item]]] = {one: deque() for one in WorkClass}
        self._passed = dict.fromkeys(WorkClass, 0)
        self._last_turn: dict[str, int] = {}
        self._turns = 0

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def push(
        self, item: Item, *, key: int, principal: str, work_class: WorkClass, now: float
    ) -> Waiting[Item] | None:
        """Adds an item behind its principal's others.

        Returns: what had to make room for it in a full queue. Of items of lower classes, where they
            have more than a quarter of it, else of all: the newest of the principal that has most.
            Among all, only if that principal still has as many as this one then.

        Raises:
            QueueFullError: `max_queued` items wait already, and its principal has its share.
        """
        is_full = len(self) >= self._max_queued
        displaced = self._make_room(principal, work_class) if is_full else None
        waiting = Waiting(key, item, principal, work_class, now)
        self._lines[work_class].append(waiting)
        return displaced

    def _make_room(self, principal: str, work_class: WorkClass) -> Waiting[Item]:
        lower = [one for one in self._all() if one.work_class > work_class]
        if len(lower) * _OWN_SHARE > self._max_queued:
            held = collections.Counter(one.principal for one in lower)
            return self._take_newest(lower, max(held, key=held.__getitem__))
        everything = list(self._all())
        held = collections.Counter(one.principal for one in everything)
        heaviest = max(held, key=held.__getitem__, default=principal)
        if held[heaviest] - 1 < held[principal] + 1:
            raise QueueFullError
        return self._take_newest(everything, heaviest)

    def _take_newest(self, among: list[Waiting[Item]], principal: str) -> Waiting[Item]:
        # Of equally new ones the last, whose class is the lowest.
        newest = max(
            enumerate(waiting for waiting in among if waiting.principal == principal),
            key=lambda numbered: (numbered[1].since, numbered[0]),
        )[1]
        self.remove(newest.key)
        return newest

    def _all(self) -> Iterator[Waiting[Item]]:
        for line in self._lines.values():
            yield from line

    def peek(self, *, with_batch: bool = True) -> Waiting[Item] | None:
        """What `pop` would give, or None."""
        found = self._next_class(with_batch=with_batch)
        return None if found is None else self._next_of(self._lines[found])

    def pop(self, *, with_batch: bool = True) -> Waiting[Item] | None:
        """Takes the next item out, or None where nobody may go.

        1. Higher classes go first (interactive, default, batch); but once `MOST_PASSED` items of
           higher classes have gone since its last turn or since it began to wait, one of a class
           goes. Where that is so of several, the lowest goes first.
        2. Within a class the principal goes whose last turn is longest ago; one that never had a
           turn goes first.
        3. Within a principal, first come, first served; so too between principals of equal rank.

        Args:
            with_batch: batch items may go, if it is their turn.
        """
        found = self._next_class(with_batch=with_batch)
        if found is None:
            return None
        return self._take(self._next_of(self._lines[found]))

    def take(self, waiting: Waiting[Item]) -> None:
        """Takes an item out that others go before: its principal has had a turn then."""
        self._take(waiting)

    def waiting(self) -> list[Waiting[Item]]:
        """All items, the highest class first, each class in order of arrival."""
        return list(self._all())

    def _take(self, chosen: Waiting[Item]) -> Waiting[Item]:
        found = chosen.work_class
        self._lines[found].remove(chosen)
        for other, waits in self._lines.items():
            if other <= found:
                continue
            self._passed[other] = self._passed[other] + 1 if waits else 0
        self._passed[found] = 0
        self._turns += 1
        self._last_turn[chosen.principal] = self._turns
        self._forget_idle_principals()
        return chosen

    def get(self, key: int) -> Item | None:
        """The item that waits under this key, or None."""
        return next((w.item for w in self._all() if w.key == key), None)

    def remove(self, key: int) -> bool:
        """Takes an item out of turn; False where none has this key."""
        for line in self._lines.values():
            for waiting in line:
                if waiting.key == key:
                    line.remove(waiting)
                    return True
        return False

    def expire(self, now: float) -> list[Waiting[Item]]:
        """Takes out all that have waited too long."""
        late: list[Waiting[Item]] = []
        for line in self._lines.values():
            # A line is in order of arrival, so the first that is in time ends the search.
            while line and now - line[0].since >= self._timeout_seconds:
                late.append(line.popleft())
        return late

    def order(self) -> list[int]:
        """Keys in the order in which they will be popped, if nothing more comes."""
        trial = AdmissionQueue[Item](max_queued=0, timeout_seconds=0)
        trial._lines = {one: line.copy() for one, line in self._lines.items()}
        trial._passed, trial._last_turn = self._passed.copy(), self._last_turn.copy()
        trial._turns = self._turns
        keys: list[int] = []
        while (waiting := trial.pop()) is not None:
            keys.append(waiting.key)
        return keys

    def _next_class(self, *, with_batch: bool) -> WorkClass | None:
        waiting = [one for one, line in self._lines.items() if line]
        if not with_batch and WorkClass.BATCH in waiting:
            waiting.remove(WorkClass.BATCH)
        due = [one for one in waiting if self._passed[one] >= MOST_PASSED]
        return due[-1] if due else next(iter(waiting), None)

    def _next_of(self, line: deque[Waiting[Item]]) -> Waiting[Item]:
        """The oldest item of the principal whose last turn is longest ago."""
        return min(line, key=lambda waiting: self._last_turn.get(waiting.principal, 0))

    def _forget_idle_principals(self) -> None:
        if len(self._last_turn) > 4 * self._max_queued + 64:
            present = {waiting.principal for waiting in self._all()}
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
        """Takes the seconds that a task ran into the average."""
        before = seconds if self._seconds is None else self._seconds
        self._seconds = before + _WEIGHT * (seconds - before)

    def seconds_until(self, position: int) -> float | None:
        """Seconds until a task with so many before it may start; None while none has ended."""
        if self._seconds is None:
            return None
        return max(_LEAST_SECONDS, self._seconds * (position + 1) / self._places)

"""Who runs next: a bounded queue in three classes, fair by principal within each.

Fair is by what each principal has had so far (`FairShares`), in seconds of devices where tasks are
measured. Pure: time is passed in (monotonic seconds), nothing is awaited.
"""

from __future__ import annotations

import collections
import dataclasses
import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from services.neuron.engine_api.fair_shares import FairShares
from services.neuron.engine_api.task import WorkClass

Item = TypeVar("Item")

MOST_PASSED: Final = 4
"""So many items of higher classes go before one of a lower class that waits: it cannot starve."""
_OWN_SHARE: Final = 4
"""Of this many queued items one may be of a lower class without making room for a higher one."""


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

    def __init__(
        self, *, max_queued: int, timeout_seconds: float, shares: FairShares | None = None
    ) -> None:
        """Makes an empty queue.

        Args:
            max_queued: most items that wait.
            timeout_seconds: longest wait.
            shares: what principals have had, here and elsewhere; None counts turns of this queue.
        """
        self._max_queued = max_queued
        self._timeout_seconds = timeout_seconds
        self._lines: dict[WorkClass, deque[Waiting[Item]]] = {one: deque() for one in WorkClass}
        self._passed = dict.fromkeys(WorkClass, 0)
        self._shares = FairShares() if shares is None else shares
        # What a principal had elsewhere, or missed while it was away, is not made up for here.
        self._raised: dict[str, float] = {}
        self._floors = dict.fromkeys(WorkClass, 0.0)

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
        missed = self._floors[work_class] - self._shares.seconds.get(principal, 0.0)
        if missed > self._raised.get(principal, 0.0):
            self._raised[principal] = missed
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

    def pop(self, *, with_batch: bool = True, cost: float = 1.0) -> Waiting[Item] | None:
        """Takes the next item out, or None where nobody may go.

        1. Higher classes go first (interactive, default, batch); but once `MOST_PASSED` items of
           higher classes have gone since its last turn or since it began to wait, one of a class
           goes. Where that is so of several, the lowest goes first.
        2. Within a class the principal goes that has had least. Whoever comes is counted as one
           that has had as much as the one whose turn it was last: idleness earns nothing.
        3. Within a principal, first come, first served; so too between principals of equal rank.

        Args:
            with_batch: batch items may go, if it is their turn.
            cost: what its principal is counted for this turn.
        """
        found = self._next_class(with_batch=with_batch)
        if found is None:
            return None
        return self._take(self._next_of(self._lines[found]), cost)

    def take(self, waiting: Waiting[Item], *, cost: float = 1.0) -> None:
        """Takes an item out although others would go first; counts as its principal's turn."""
        self._take(waiting, cost)

    def waiting(self) -> list[Waiting[Item]]:
        """All items, the highest class first, each class in order of arrival."""
        return list(self._all())

    def _take(self, chosen: Waiting[Item], cost: float) -> Waiting[Item]:
        found = chosen.work_class
        self._lines[found].remove(chosen)
        for other, waits in self._lines.items():
            if other <= found:
                continue
            self._passed[other] = self._passed[other] + 1 if waits else 0
        self._passed[found] = 0
        self._floors[found] = max(self._floors[found], self._had(chosen.principal))
        self._shares.add(chosen.principal, cost)
        self._forget_idle_principals()
        return chosen

    def _had(self, principal: str) -> float:
        return self._shares.seconds.get(principal, 0.0) + self._raised.get(principal, 0.0)

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

    def order(self, *, cost: float = 1.0) -> list[int]:
        """Keys in the order in which they will be popped, if nothing more comes.

        Costs about a microsecond for each, however many wait.

        Args:
            cost: what each turn is counted.
        """
        had, passed = dict(self._shares.seconds), self._passed.copy()
        rounds = {one: _Round(line, had, self._raised) for one, line in self._lines.items() if line}
        keys: list[int] = []
        while rounds:
            found = _due(list(rounds), passed)
            keys.append(rounds[found].pop(cost))
            if not rounds[found]:
                del rounds[found]
            for other in passed:
                if other > found:
                    passed[other] = passed[other] + 1 if other in rounds else 0
            passed[found] = 0
        return keys

    def _next_class(self, *, with_batch: bool) -> WorkClass | None:
        waiting = [one for one, line in self._lines.items() if line]
        if not with_batch and WorkClass.BATCH in waiting:
            waiting.remove(WorkClass.BATCH)
        return _due(waiting, self._passed) if waiting else None

    def _next_of(self, line: deque[Waiting[Item]]) -> Waiting[Item]:
        """The oldest item of the principal that has had least."""
        return min(line, key=lambda waiting: self._had(waiting.principal))

    def _forget_idle_principals(self) -> None:
        if len(self._raised) > 4 * self._max_queued + 64:
            present = {waiting.principal for waiting in self._all()}
            self._raised = {p: t for p, t in self._raised.items() if p in present}


class _Round:
    """The line of one class as it will be popped: by principals, the one that has had least first.

    Args:
        line: in order of arrival.
        had: of each principal; other classes count there too.
        raised: added to it.
    """

    def __init__(
        self, line: Iterable[Waiting[Any]], had: dict[str, float], raised: Mapping[str, float]
    ) -> None:
        self._seconds = had
        self._raised = raised
        self._waiting: dict[str, deque[tuple[int, int]]] = {}
        for place, waiting in enumerate(line):
            self._waiting.setdefault(waiting.principal, deque()).append((place, waiting.key))
        # of equals the first in line goes first
        self._heap = [
            (self._had(principal), items[0][0], principal)
            for principal, items in self._waiting.items()
        ]
        heapq.heapify(self._heap)

    def __len__(self) -> int:
        return len(self._heap)

    def pop(self, cost: float) -> int:
        """The next one's key; its principal has had this turn then."""
        while True:
            before, place, principal = self._heap[0]
            known = self._had(principal)
            if known == before:
                break
            heapq.heapreplace(self._heap, (known, place, principal))
        self._seconds[principal] = self._seconds.get(principal, 0.0) + cost
        items = self._waiting[principal]
        _, key = items.popleft()
        if items:
            heapq.heapreplace(self._heap, (self._had(principal), items[0][0], principal))
        else:
            heapq.heappop(self._heap)
        return key

    def _had(self, principal: str) -> float:
        return self._seconds.get(principal, 0.0) + self._raised.get(principal, 0.0)


def _due(waiting: Sequence[WorkClass], passed: Mapping[WorkClass, int]) -> WorkClass:
    """Whose turn it is of the classes that wait, the highest first: rule 1 of `pop`."""
    due = [one for one in waiting if passed[one] >= MOST_PASSED]
    return due[-1] if due else waiting[0]

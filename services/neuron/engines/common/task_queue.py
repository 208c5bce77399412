"""Tasks that wait for a place in the batch, and what they are told meanwhile."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.events import Failed, Queued, failed
from services.neuron.engine_api.model import LoadPlan
from services.neuron.engine_api.task import Task, WorkClass
from services.neuron.engines.common.admission import (
    AdmissionQueue,
    Pace,
    QueueFullError,
    Waiting,
)

Item = TypeVar("Item")


def reserved_places(places: int) -> int:
    """How many places batch work never takes: a quarter, at least one unless there is only one."""
    return max(places // 4, 1) if places > 1 else 0


class TaskQueue(Generic[Item]):
    """An admission queue that says in events who was refused, who came too late, and who is next.

    Pure: time is passed in (monotonic seconds).
    """

    def __init__(self, *, max_queued: int, timeout_seconds: float, places: int) -> None:
        """Makes an empty queue.

        Args:
            max_queued: most tasks that wait.
            timeout_seconds: longest wait.
            places: how many tasks run together, for the estimate of waiting times.
        """
        self._queue = AdmissionQueue[Item](max_queued=max_queued, timeout_seconds=timeout_seconds)
        self._pace = Pace(places)
        self._most_batch = places - reserved_places(places)
        self._has_moved = False

    @classmethod
    def of_plan(cls, plan: LoadPlan, *, places: int) -> TaskQueue[Item]:
        """An empty queue with a load plan's bounds."""
        return cls(
            max_queued=plan.max_queued,
            timeout_seconds=plan.queue_timeout_seconds,
            places=places,
        )

    def __len__(self) -> int:
        return len(self._queue)

    def push(self, item: Item, task: Task, *, now: float) -> tuple[Item, Failed] | None:
        """Adds a task's item behind its principal's others.

        Returns: what had to make room for it, with its QUEUE_FULL; see `AdmissionQueue.push`.

        Raises:
            FleetError: QUEUE_FULL, as many wait as may, and of its principal its share.
        """
        try:
            displaced = self._queue.push(
                item,
                key=task.task_id,
                principal=task.principal,
                work_class=task.work_class,
                now=now,
            )
        except QueueFullError as error:
            raise self._full() from error
        self._has_moved = True
        if displaced is None:
            return None
        return displaced.item, failed(displaced.key, self._full())

    def peek(self, running: Iterable[Task]) -> Waiting[Item] | None:
        """What `pop` would give, or None."""
        return self._queue.peek(with_batch=self.may_take_batch(running))

    def pop(self, running: Iterable[Task]) -> Waiting[Item] | None:
        """Takes the next item out, or None where nobody may go.

        Batch work leaves `reserved_places` to the others.

        Args:
            running: the tasks that have a place now.
        """
        waiting = self._queue.pop(with_batch=self.may_take_batch(running))
        self._has_moved |= waiting is not None
        return waiting

    def take(self, waiting: Waiting[Item]) -> None:
        """Takes out what has been given another's place."""
        self._queue.take(waiting)
        self._has_moved = True

    def waiting(self) -> list[Waiting[Item]]:
        """All that wait, the highest class first, each class in order of arrival."""
        return self._queue.waiting()

    def get(self, task_id: int) -> Item | None:
        """The item of a task that waits, or None."""
        return self._queue.get(task_id)

    def remove(self, task_id: int) -> bool:
        """Takes a task out of turn; False where it does not wait."""
        was_there = self._queue.remove(task_id)
        self._has_moved |= was_there
        return was_there

    def expire(self, now: float) -> list[tuple[Item, Failed]]:
        """Takes out all that have waited too long, each with its QUEUE_TIMEOUT."""
        late = self._queue.expire(now)
        self._has_moved |= bool(late)
        return [(one.item, failed(one.key, self._timed_out(now - one.since))) for one in late]

    def moves(self) -> list[Queued]:
        """Everyone's place and likely wait, if anything changed since the last call."""
        if not self._has_moved:
            return []
        self._has_moved = False
        order = self._queue.order()
        return [Queued(key, n, self._pace.seconds_until(n)) for n, key in enumerate(order)]

    def note_end(self, seconds: float) -> None:
        """Counts a task that ran so long and ended well; waiting times are estimated from these."""
        self._pace.note(seconds)

    def may_take_batch(self, running: Iterable[Task]) -> bool:
        """True if batch work may have one more place, beside these."""
        batch = sum(task.work_class is WorkClass.BATCH for task in running)
        return batch < self._most_batch

    def _full(self) -> FleetError:
        waiting = len(self._queue)
        return FleetError(
            Reason.QUEUE_FULL,
            f"{waiting} requests wait for this model already.",
            retry_after_seconds=self._pace.seconds_until(waiting),
            facts={"queued": str(waiting)},
        )

    def _timed_out(self, seconds: float) -> FleetError:
        return FleetError(
            Reason.QUEUE_TIMEOUT,
            f"No place became free within {seconds:.1f} seconds.",
            retry_after_seconds=self._pace.seconds_until(len(self._queue)),
        )

"""Tasks that wait for a place in the batch, and what they are told meanwhile."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final, Generic, TypeVar

from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.events import Failed, Queued, failed
from services.neuron.engine_api.fair_shares import FairShares
from services.neuron.engine_api.model import LoadPlan
from services.neuron.engine_api.task import Task, WorkClass
from services.neuron.engines.common.admission import (
    AdmissionQueue,
    QueueFullError,
    Waiting,
)
from services.neuron.engines.common.step_meter import StepMeter
from services.neuron.engines.common.wait_estimate import WaitEstimate

Item = TypeVar("Item")

_TELL_SECONDS: Final = 1.0


def reserved_places(places: int) -> int:
    """How many places batch work never takes: a quarter, at least one unless there is only one."""
    return max(places // 4, 1) if places > 1 else 0


class TaskQueue(Generic[Item]):
    """An admission queue that says in events who was refused, who came too late, and who is next.

    Pure: time is passed in (monotonic seconds).
    """

    def __init__(
        self, *, max_queued: int, timeout_seconds: float, places: int, shares: FairShares
    ) -> None:
        """Makes an empty queue.

        Args:
            max_queued: most tasks that wait.
            timeout_seconds: longest wait.
            places: how many tasks run together, for the estimate of waiting times.
            shares: what principals have had of the devices, over all models.
        """
        self.meter = StepMeter(shares)
        """Measures those that have left the queue for a place."""
        self._queue = AdmissionQueue[Item](
            max_queued=max_queued, timeout_seconds=timeout_seconds, shares=shares
        )
        self._pace = WaitEstimate(places)
        self._most_batch = places - reserved_places(places)
        self._has_moved = False
        self._newcomers: set[int] = set()
        self._told_at = -math.inf

    @classmethod
    def of_plan(cls, plan: LoadPlan, *, places: int, shares: FairShares) -> TaskQueue[Item]:
        """An empty queue with a load plan's bounds."""
        return cls(
            max_queued=plan.max_queued,
            timeout_seconds=plan.queue_timeout_seconds,
            places=places,
            shares=shares,
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
        self._newcomers.add(task.task_id)
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
        cost = self.meter.turn_seconds
        waiting = self._queue.pop(with_batch=self.may_take_batch(running), cost=cost)
        if waiting is not None:
            self._begin(waiting, cost)
        return waiting

    def take(self, waiting: Waiting[Item]) -> None:
        """Takes out what has been given another's place."""
        cost = self.meter.turn_seconds
        self._queue.take(waiting, cost=cost)
        self._begin(waiting, cost)

    def _begin(self, waiting: Waiting[Item], cost: float) -> None:
        self._has_moved = True
        self.meter.begin(waiting.key, waiting.principal, cost)

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

    def moves(self, now: float) -> list[Queued]:
        """Places and likely waits of those who have to hear of them by now (monotonic seconds).

        Newcomers hear at once; the others once a second where anything changed since they last did.
        To tell everybody of every change would take more time than the work in a long queue.
        """
        if not self._has_moved:
            return []
        is_time = now - self._told_at >= _TELL_SECONDS
        if not (is_time or self._newcomers):
            return []
        tells, self._newcomers = self._newcomers, set()
        if is_time:
            self._has_moved, self._told_at = False, now
        return [
            Queued(key, n, self._pace.seconds_until(n))
            for n, key in enumerate(self._queue.order(cost=self.meter.turn_seconds))
            if is_time or key in tells
        ]

    def note_end(self, seconds: float) -> None:
        """Counts a task that ran so long and ended well; waiting times are estimated from these."""
        self._pace.note(seconds)

    @property
    def seconds_per_request(self) -> float | None:
        """Average seconds that a task runs, divided by the number of places; None: not known."""
        return self._pace.seconds_per_place

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

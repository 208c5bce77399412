"""Divides the time of each step between the tasks in it: one for each model, for every engine."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from services.neuron.engine_api.device_time import StepTimes, TaskTime
from services.neuron.engine_api.fair_shares import FairShares
from services.neuron.engine_api.task import Task

_WEIGHT: Final = 0.2
"""Share of the newest task in the average."""
_UNKNOWN_SECONDS: Final = 1.0
"""What a turn is counted as before the first task of a model has ended."""
_NANOSECONDS: Final = 1e-9


class _Record:
    """One task.

    Attributes:
        prefill_ns, decode_ns: since they were last told.
        seconds: in all.
        counted: of what its principal was counted for it.
    """

    __slots__ = ("counted", "decode_ns", "prefill_ns", "principal", "seconds")

    def __init__(self, principal: str, counted: float) -> None:
        self.principal = principal
        self.counted = counted
        self.prefill_ns = self.decode_ns = 0.0
        self.seconds = 0.0


class StepMeter:
    """Measures how long devices work for each task of one model.

    The rule: the time of a step goes to the tasks of which it computed tokens, in proportion to
    these tokens: those read of prompts, but not those found in a cache, and those made. So each
    part of a step adds up to it. A step that computed nothing is nobody's.

    Args:
        shares: told of what each principal has had.
    """

    def __init__(self, shares: FairShares) -> None:
        self._shares = shares
        self._records: dict[int, _Record] = {}
        self._work: list[tuple[Task, int, int]] = []
        # Steps in a row that compute the same are divided together: most do.
        self._alike: list[tuple[Task, int, int]] = []
        self._alike_ns = 0
        self._busy_ns = 0
        self._average: float | None = None

    @property
    def turn_seconds(self) -> float:
        """Average device seconds of a task: what a new one is counted as before it is measured."""
        return _UNKNOWN_SECONDS if self._average is None else self._average

    def begin(self, task_id: int, principal: str, counted: float) -> None:
        """Starts measuring a task, for which `counted` seconds were counted in advance."""
        record = self._records.get(task_id)
        if record is None:
            self._records[task_id] = _Record(principal, counted)
        else:  # its pictures were read before
            record.counted += counted

    def note(self, work: list[tuple[Task, int, int]]) -> None:
        """Says what the running step computes: per task, tokens of its prompt and of its answer."""
        self._work = [*self._work, *work] if self._work else work

    def end_step(self, elapsed_ns: int) -> None:
        """Adds the time of the step that has ended; equal steps in a row are divided together."""
        work, self._work = self._work, []
        if work != self._alike:
            self._divide()
            self._alike = work
        self._alike_ns += elapsed_ns

    def _divide(self) -> None:
        work, elapsed_ns = self._alike, self._alike_ns
        self._alike, self._alike_ns = [], 0
        tokens = 0
        for _, read, made in work:
            tokens += read + made
        if not tokens:
            return
        self._busy_ns += elapsed_ns
        price = elapsed_ns / tokens
        records = self._records
        for task, read, made in work:
            record = records.get(task.task_id)
            if record is None:
                record = records[task.task_id] = _Record(task.principal, 0.0)
            record.prefill_ns += price * read
            record.decode_ns += price * made
            record.seconds += price * (read + made) * _NANOSECONDS
            if record.seconds > record.counted:
                self._shares.add(record.principal, record.seconds - record.counted)
                record.counted = record.seconds

    def charge(self, task: Task, elapsed_ns: int) -> None:
        """Charges a task for work outside of the steps, such as reading its pictures."""
        self.note([(task, 1, 0)])
        self.end_step(elapsed_ns)

    def take(self, ended: Collection[int] | None = None) -> StepTimes:
        """Returns the times since the last call, and starts again at zero.

        Args:
            ended: of these tasks alone, of which nothing comes any more; None: of all.
        """
        self._divide()
        told: list[TaskTime] = []
        for task_id in list(self._records) if ended is None else ended:
            record = self._records.get(task_id)
            if record is None:
                continue
            prefill_ns, decode_ns = int(record.prefill_ns), int(record.decode_ns)
            if prefill_ns or decode_ns:  # parts of a nanosecond are told later
                told.append(TaskTime(task_id, record.principal, prefill_ns, decode_ns))
                record.prefill_ns -= prefill_ns
                record.decode_ns -= decode_ns
            if ended is not None:
                self._end(task_id, record)
        busy_ns, self._busy_ns = self._busy_ns, 0
        return StepTimes(told, busy_ns)

    def _end(self, task_id: int, record: _Record) -> None:
        del self._records[task_id]
        if record.counted > record.seconds:
            self._shares.add(record.principal, record.seconds - record.counted)
        if record.seconds:
            before = record.seconds if self._average is None else self._average
            self._average = before + _WEIGHT * (record.seconds - before)

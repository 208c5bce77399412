"""What the daemon has under way with one worker process: tasks, loads, calls.

Made for one process and dead with it. It knows no instance and decides nothing: it sends commands
and brings each report to whoever waits for it.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, assert_never

import structlog

from services.backplane.errors import FleetError
from services.backplane.futures import fail, settle
from services.backplane.process.faults import Faults
from services.backplane.security.principals import SYSTEM
from services.neuron.engine_api.cache import CacheChanges
from services.neuron.engine_api.events import Ended, Event, Failed
from services.neuron.engine_api.frames import (
    AbandonLoad,
    Beat,
    CacheReport,
    Cancel,
    Charged,
    Compared,
    Counted,
    Crashed,
    Credit,
    Embedded,
    Hello,
    Load,
    LoadAborted,
    LoadAdvanced,
    Loaded,
    Report,
    Stepped,
    Submit,
    Unload,
    Unloaded,
)
from services.neuron.engine_api.model import LoadPlan, ModelStats
from services.neuron.engine_api.task import Task
from services.neuron.supervisor.failures import worker_failure
from services.neuron.supervisor.task_listener import TaskListener
from services.neuron.supervisor.worker_calls import WorkerCalls

log = structlog.get_logger()


class WorkerLink(WorkerCalls):
    """The daemon's end of one worker process: commands go out, reports find whoever waits."""

    def __init__(
        self,
        send: Callable[..., None],
        *,
        on_stats: Callable[[str, ModelStats], None],
        on_cache: Callable[[str, CacheChanges], None],
        on_charged: Callable[[Charged], None],
        task_ids: itertools.count[int],
        faults: Faults,
    ) -> None:
        """Speaks to a process through `send`.

        Args:
            send: writes commands.
            on_stats: told how busy a model is, by instance.
            on_cache: told what a model's cache holds, by instance.
            on_charged: told whom the devices have worked for.
            task_ids: unique over all processes, so that a late frame never finds a wrong task.
            faults: told of exceptions, the worker's own among them.
        """
        super().__init__(send)
        self._faults = faults
        self._on_stats = on_stats
        self._on_cache = on_cache
        self._on_charged = on_charged
        self._task_ids = task_ids
        self._tasks: dict[int, TaskListener] = {}
        self._loads: dict[str, tuple[asyncio.Future[Loaded], Callable[[LoadAdvanced], None]]] = {}
        self._unloads: dict[str, asyncio.Future[int]] = {}
        self.hello: asyncio.Future[Hello] = asyncio.get_running_loop().create_future()
        self.resident_bytes = 0
        self.rank_pids: tuple[int, ...] = ()
        self.busy_with = ""

    @property
    def is_loading(self) -> bool:
        """True while a load is under way."""
        return bool(self._loads)

    @property
    def is_lost(self) -> bool:
        """True once the process has died."""
        return self._lost is not None

    @property
    def callers(self) -> frozenset[str]:
        """Names of the callers whose tasks are in the process: suspects if it dies."""
        return frozenset(listener.caller for listener in self._tasks.values())

    # What the daemon asks.

    def new_task_id(self) -> int:
        """An id that no task of any worker has had."""
        return next(self._task_ids)

    def submit(self, task: Task, listener: TaskListener) -> None:
        """Queues a task.

        Raises:
            FleetError: WORKER_LOST, the process has died.
        """
        self._check()
        self._send(Submit(task))
        self._tasks[task.task_id] = listener

    def cancel(self, task_id: int) -> None:
        """Forgets a task, here and in the worker; its listener hears no more."""
        if self._tasks.pop(task_id, None) is not None:
            self._send(Cancel((task_id,)))

    def credit(self, task_id: int, tokens: int) -> None:
        """Lets a task send so many more tokens; ignored where the task has ended."""
        if task_id in self._tasks:
            self._send(Credit(((task_id, tokens),)))

    async def load(self, plan: LoadPlan, on_progress: Callable[[LoadAdvanced], None]) -> Loaded:
        """Loads a model. Cancelling abandons the load and frees what it had taken.

        Raises:
            FleetError: with the engine's reason and words, or WORKER_LOST.
        """
        self._check()
        future: asyncio.Future[Loaded] = asyncio.get_running_loop().create_future()
        self._loads[plan.instance_id] = (future, on_progress)
        self._send(Load(plan))
        try:
            return await future
        except asyncio.CancelledError:
            self._send(AbandonLoad(plan.instance_id))
            raise
        finally:
            self._loads.pop(plan.instance_id, None)

    async def unload(self, instance_id: str, *, principal: str = SYSTEM) -> int:
        """Frees a model, which a principal is charged. Returns the bytes that came free.

        Raises:
            FleetError: WORKER_LOST.
        """
        return await self._until(self._unloads, instance_id, Unload(instance_id, principal))

    # What the worker says.

    def on_report(self, report: Report) -> None:
        """Brings a report to whoever waits for it. Never raises: other reports follow."""
        try:
            self._bring(report)
        except Exception as error:  # noqa: BLE001 - it concerns those alone who wait for this one
            failure = self._faults.note("worker.report", error)
            for future in self._waiting_for(report):
                fail(future, failure)

    def _waiting_for(self, report: Report) -> list[asyncio.Future[Any]]:
        match report:
            case Counted() | Embedded() | Compared():
                found: asyncio.Future[Any] | None = self._calls.get(report.call_id)
            case LoadAdvanced() | Loaded() | LoadAborted():
                found = self._loads.get(report.instance_id, (None, None))[0]
            case Unloaded():
                found = self._unloads.get(report.instance_id)
            case _:
                found = None
        return [] if found is None else [found]

    def _bring(self, report: Report) -> None:  # noqa: C901, PLR0912 - one case per kind
        match report:
            case Stepped():
                for event in report.events:
                    self._on_event(event)
                self._on_stats(report.instance_id, report.stats)
            case Charged():
                self._on_charged(report)
                for charge in report.charges:
                    listener = self._tasks.get(charge.task_id)
                    if listener is not None:
                        listener.on_time(charge)
            case CacheReport():
                self._on_cache(report.instance_id, report.news)
            case Beat():
                self.resident_bytes, self.busy_with = report.resident_bytes, report.busy_with
                self.rank_pids = report.rank_pids
            case Counted() | Embedded() | Compared():
                call = self._calls.get(report.call_id)
                if report.error is None:
                    settle(call, report)
                else:
                    fail(call, worker_failure(*report.error))
            case LoadAdvanced():
                if report.instance_id in self._loads:
                    with self._faults.contained("worker.progress"):
                        self._loads[report.instance_id][1](report)
            case Loaded():
                if report.instance_id in self._loads:
                    settle(self._loads[report.instance_id][0], report)
                else:  # it became ready while being abandoned
                    self._send(Unload(report.instance_id, SYSTEM))
            case LoadAborted():
                if report.instance_id in self._loads:
                    error = worker_failure(report.reason, report.message)
                    fail(self._loads[report.instance_id][0], error)
            case Unloaded():
                if report.saved_sequences:
                    log.info(
                        "model.cache_saved",
                        instance_id=report.instance_id,
                        sequences=report.saved_sequences,
                        bytes=report.saved_bytes,
                    )
                settle(self._unloads.get(report.instance_id), report.freed_bytes)
            case Hello():
                settle(self.hello, report)
            case Crashed():
                self._faults.note_remote(report.place, report.trace)
            case _:
                assert_never(report)

    def on_death(self, error: FleetError) -> None:
        """Tells everyone who waits that the process is gone."""
        self._lost = error
        tasks, self._tasks = self._tasks, {}
        loads = [future for future, _ in self._loads.values()]
        waiting: list[asyncio.Future[Any]] = [self.hello, *loads]
        for future in [*waiting, *self._unloads.values(), *self._calls.values()]:
            fail(future, error)
        is_alone = len(tasks) == 1 and not loads  # a load may be what it died of
        for listener in tasks.values():
            with self._faults.contained("worker.lost"):
                listener.on_worker_lost(error, is_alone=is_alone)

    def _on_event(self, event: Event) -> None:
        task_id = event.task_id
        listener = self._tasks.get(task_id)
        if listener is None:  # cancelled meanwhile
            return
        if isinstance(event, Ended | Failed):
            del self._tasks[task_id]
            if isinstance(event, Failed) and event.trace:
                self._faults.note_remote("worker.engine", event.trace, task_id=task_id)
        try:
            listener.on_event(event)
        except Exception as error:  # noqa: BLE001
            # One listener's fault must not take the other sequences of the step with it.
            failure = self._faults.note("task", error, task_id=task_id)
            with self._faults.contained("task", task_id=task_id):
                self.cancel(task_id)
            with self._faults.contained("task", task_id=task_id):
                listener.fail(failure)

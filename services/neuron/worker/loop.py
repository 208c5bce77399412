"""The engine loop: the worker's main thread, the only one that steps models."""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from typing import Final

from services.backplane.errors import FleetError, Reason
from services.backplane.security.principals import SYSTEM
from services.neuron.engine_api.cache import ReportsCache
from services.neuron.engine_api.engine import Engine, Grouped
from services.neuron.engine_api.events import Ended, Failed, crashed, failed, trace
from services.neuron.engine_api.frames import (
    AbandonCall,
    AbandonLoad,
    Beat,
    CacheReport,
    Cancel,
    Compared,
    CompareTokens,
    Crashed,
    Credit,
    Hello,
    Load,
    LoadAborted,
    Loaded,
    Stepped,
    StopWorker,
    Unload,
    Unloaded,
)
from services.neuron.engine_api.model import EnginePoisoned, LoadPlan, ModelStats
from services.neuron.worker.charges import Charges
from services.neuron.worker.embedding import Embeddings
from services.neuron.worker.inbox import Inbox
from services.neuron.worker.link import DaemonLink
from services.neuron.worker.loading import LoadQueue
from services.neuron.worker.models import WorkerInstance, WorkerInstances, gone
from services.neuron.worker.process import resident_bytes
from services.neuron.worker.unloading import Unloading
from services.neuron.worker.work import TokenisedTask, TokenisedTexts, Work

_BEAT_SECONDS: Final = 0.5
_TICK_SECONDS: Final = 0.1
_GRACE_SECONDS: Final = 5.0


class EngineLoop:
    """Takes commands, advances loads and embeddings, steps every model that has work."""

    def __init__(self, engine: Engine, link: DaemonLink) -> None:
        self._engine = engine
        self._link = link
        self._instances = WorkerInstances()
        self._charges = Charges(link, engine.shares)
        self._inbox = Inbox(self._instances, link)
        self._load_queue = LoadQueue(engine, link, self._charges)
        self._unloading = Unloading(link, self._charges)
        self._embeddings = Embeddings(self._instances, link, self._charges)
        self._is_stopping = False
        self._beat_at = 0.0

    def run(self) -> None:
        """Returns when the daemon says stop or is gone.

        Raises:
            EnginePoisoned: the process must be replaced.
        """
        self._link.send(_hello(self._engine))
        self._link.start(self._inbox.put_command, self._on_closed)
        try:
            while not self._is_stopping:
                self._turn()
            for instance in self._instances.all():
                self._charges.collect(instance)
                self._unloading.hibernate(instance, SYSTEM)
        finally:
            self._charges.tell()
            self._link.flush()

    def _on_closed(self) -> None:
        """Ends the process, if need be without the loop; called by the reader thread."""
        self._inbox.put_stop()
        time.sleep(_GRACE_SECONDS)
        os._exit(0)  # the loop hangs in a step that nobody waits for

    def _turn(self) -> None:
        for work in self._inbox.take(wait_seconds=0 if self._is_busy else _TICK_SECONDS):
            self._attempt(work)
        self._unloading.advance()
        self._advance_load()
        self._embeddings.advance(beside_others=self._is_generating)
        for instance in self._instances.all():
            self._step(instance)
            self._tell_cache(instance)
        self._beat()

    @property
    def _is_busy(self) -> bool:
        return self._load_queue.is_busy or self._embeddings.is_busy or self._is_generating

    @property
    def _is_generating(self) -> bool:
        return any(instance.model.has_work for instance in self._instances.all())

    def _attempt(self, work: Work) -> None:
        """Does some work; an exception that nobody foresaw ends it alone, and the loop goes on.

        Raises:
            EnginePoisoned: the process must be replaced.
        """
        try:
            self._do(work)
        except (EnginePoisoned, KeyboardInterrupt, SystemExit):
            raise
        # Libraries written in Rust raise panics that are no `Exception`.
        except BaseException as error:  # noqa: BLE001
            self._give_up(work, error)

    def _give_up(self, work: Work, error: BaseException) -> None:
        match work:
            case TokenisedTask(task=task):
                instance = self._instances.get(task.instance_id)
                if instance is not None:
                    instance.tasks.discard(task.task_id)
                    instance.model.cancel(task.task_id)
                    self._charge(instance, [task.task_id])
                stats = ModelStats() if instance is None else instance.model.stats()
                event = crashed(task.task_id, error)
                self._link.send(Stepped(task.instance_id, (event,), stats))
                return
            case Load(plan=plan):
                told = f"The engine failed: {type(error).__name__}."
                self._link.send(LoadAborted(plan.instance_id, Reason.LOAD_FAILED.value, told))
            case CompareTokens(call_id=call_id):
                failure = (Reason.INTERNAL.value, "The engine failed.")
                self._link.send(Compared(call_id, error=failure))
            case TokenisedTexts(call=call):
                self._embeddings.refuse(call, FleetError(Reason.INTERNAL, "The engine failed."))
            case _:  # nobody waits for its answer
                pass
        self._link.send(Crashed("worker.command", trace(error)))

    def _do(self, work: Work) -> None:  # noqa: C901 - one case per kind
        match work:
            case Load(plan=plan):
                self._begin_load(plan)
            case AbandonLoad(instance_id=instance_id):
                self._load_queue.abandon(instance_id)
            case Unload():
                self._unload(work)
            case TokenisedTask():
                self._submit(work)
            case Cancel(task_ids=task_ids):
                self._cancel(task_ids)
            case Credit(grants=grants):
                self._credit(grants)
            case TokenisedTexts(call=call, inputs=inputs):
                self._embeddings.begin(call, inputs)
            case CompareTokens():
                self._compare(work)
            case AbandonCall(call_id=call_id):
                self._embeddings.abandon(call_id)
            case StopWorker():
                self._is_stopping = True

    def _begin_load(self, plan: LoadPlan) -> None:
        is_known = self._instances.get(plan.instance_id) is not None
        if is_known or self._load_queue.has(plan.instance_id):
            self._link.send(
                LoadAborted(plan.instance_id, "LOAD_FAILED", "An instance of this name is loaded.")
            )
            return
        self._load_queue.begin(plan)

    def _advance_load(self) -> None:
        ready = self._load_queue.advance()
        if ready is not None:
            self._instances.add(WorkerInstance(ready.plan, ready.model))
            self._link.send(Loaded(ready.plan.instance_id, ready.model.info, ready.seconds))

    def _unload(self, order: Unload) -> None:
        self._load_queue.abandon(order.instance_id)
        instance = self._instances.remove(order.instance_id)
        if instance is None:
            self._link.send(Unloaded(order.instance_id, 0))
            return
        self._end_tasks(instance)
        self._unloading.begin(instance, order.principal)

    def _end_tasks(self, instance: WorkerInstance) -> None:
        events = tuple(
            failed(task_id, gone(instance.instance_id)) for task_id in sorted(instance.tasks)
        )
        for task_id in instance.tasks:
            instance.model.cancel(task_id)
        if events:
            self._charge(instance, instance.tasks)
            instance.tasks.clear()
            self._link.send(Stepped(instance.instance_id, events, instance.model.stats()))

    def _submit(self, work: TokenisedTask) -> None:
        task = work.task
        instance = self._instances.get(task.instance_id)
        if instance is None:
            event = failed(task.task_id, gone(task.instance_id))
            self._link.send(Stepped(task.instance_id, (event,), ModelStats()))
        elif isinstance(work.token_ids, FleetError):
            event = failed(task.task_id, work.token_ids)
            self._link.send(Stepped(task.instance_id, (event,), instance.model.stats()))
        else:
            instance.tasks.add(task.task_id)
            instance.model.submit(task, work.token_ids)

    def _cancel(self, task_ids: tuple[int, ...]) -> None:
        for instance in self._instances.all():
            cancelled = instance.tasks.intersection(task_ids)
            for task_id in cancelled:
                instance.model.cancel(task_id)
                instance.tasks.discard(task_id)
            if cancelled:  # nothing follows, and the daemon's picture would stay as it was
                self._charges.collect(instance, cancelled)
                self._link.send(Stepped(instance.instance_id, (), instance.model.stats()))

    def _credit(self, grants: tuple[tuple[int, int], ...]) -> None:
        for task_id, tokens in grants:
            for instance in self._instances.all():
                if task_id in instance.tasks:
                    instance.model.credit(task_id, tokens)

    def _step(self, instance: WorkerInstance) -> None:
        if not instance.tasks:
            return
        # Also where nothing can be decoded: those that wait too long must hear of it.
        events = instance.model.step()
        if not events:
            return
        ended = [event.task_id for event in events if isinstance(event, Ended | Failed)]
        if ended:
            instance.tasks.difference_update(ended)
            self._charge(instance, ended)
        self._link.send(Stepped(instance.instance_id, tuple(events), instance.model.stats()))

    def _charge(self, instance: WorkerInstance, ended: Collection[int]) -> None:
        """Tells what tasks have used before they end: afterwards the daemon listens no more."""
        self._charges.collect(instance, ended)
        self._charges.tell()

    def _tell_cache(self, instance: WorkerInstance) -> None:
        model = instance.model
        news = model.cache_changes(time.monotonic()) if isinstance(model, ReportsCache) else None
        if news is not None:
            self._link.send(CacheReport(instance.instance_id, news))

    def _compare(self, call: CompareTokens) -> None:
        instance = self._instances.get(call.instance_id)
        if instance is None:
            error = gone(call.instance_id)
            answer = Compared(call.call_id, error=(error.reason.value, error.message))
        elif isinstance(instance.model, ReportsCache):
            found = instance.model.compare(call.token_ids, call.principal)
            answer = Compared(call.call_id, found)
        else:
            told = "Its engine does not tell what its cache holds."
            answer = Compared(call.call_id, error=(Reason.BAD_REQUEST.value, told))
        self._link.send(answer)

    def _beat(self) -> None:
        now = time.monotonic()
        if now - self._beat_at < _BEAT_SECONDS:
            return
        self._beat_at = now
        for instance in self._instances.all():
            self._charges.collect(instance)
        self._charges.tell()
        others = self._engine.rank_pids if isinstance(self._engine, Grouped) else ()
        self._link.send(Beat(self._busy_with, resident_bytes(*others), others))

    @property
    def _busy_with(self) -> str:
        if self._load_queue.loading:
            return f"loading {self._load_queue.loading}"
        if self._embeddings.is_busy:
            return "embedding"
        return "generating" if self._is_busy else ""


def _hello(engine: Engine) -> Hello:
    return Hello(os.getpid(), engine.name, engine.facts)

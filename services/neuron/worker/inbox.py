"""What the reader thread hands to the engine loop: commands with their text tokenised.

Short texts are tokenised by the reader thread. Long ones go to two threads of their own, so that
neither other submits nor cancels wait for them: one for prompts, which takes no longer than a
prompt that fits, and one for texts that are counted or embedded, which may take seconds. A third
compiles constraints, which lets go of the interpreter's lock: no stream waits for a schema.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from typing import Final

from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.engine import Interruptible
from services.neuron.engine_api.events import trace
from services.neuron.engine_api.frames import (
    AbandonCall,
    Cancel,
    Command,
    Counted,
    CountTokens,
    Crashed,
    Credit,
    EmbedTexts,
    StopWorker,
    Submit,
)
from services.neuron.engine_api.task import Prompt, Task, WorkClass
from services.neuron.worker.link import DaemonLink
from services.neuron.worker.models import WorkerInstances
from services.neuron.worker.tokenising import Abandoned, Purpose, WorkThread, is_long, token_ids
from services.neuron.worker.work import TokenisedTask, TokenisedTexts, Work

_MOST_CONSTRAINTS: Final = 1_024


class Inbox:
    """A queue in the order in which commands came; tasks with long prompts come later.

    Unbounded, but short: the daemon bounds what is in flight, and the loop empties it every turn.
    """

    def __init__(self, instances: WorkerInstances, link: DaemonLink) -> None:
        self._instances = instances
        self._link = link
        self._queue: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._prompts = WorkThread("prompts", self._tokenise_task, on_broken=self.put_stop)
        self._constraints = WorkThread(
            "constraints",
            self._compile,
            on_broken=self.put_stop,
            most_waiting=_MOST_CONSTRAINTS,
        )
        self._texts = WorkThread("texts", self._tokenise_texts, on_broken=self.put_stop)
        self._lock = threading.Lock()
        self._credits: dict[int, int] = {}  # what came for tasks that are still tokenised
        self._calls: set[int] = set()  # whose texts are still tokenised

    def put_command(self, command: Command) -> None:
        """Tokenises what has text and queues the rest; called by the reader thread.

        Never raises: what goes wrong with a command ends that command alone.
        """
        try:
            self._put(command)
        except BaseException as error:  # noqa: BLE001 - the thread reads everybody's commands
            self._give_up(command, error)

    def _give_up(self, command: Command, error: BaseException) -> None:
        """Ends one command for an exception that nobody foresaw, or for a panic of Rust's."""
        failure = FleetError(Reason.INTERNAL, "The engine failed at this text.")
        match command:
            case Submit(task=task):
                with self._lock:
                    self._credits.pop(task.task_id, None)
                self._queue.put(TokenisedTask(task, failure))
            case CountTokens() | EmbedTexts():
                with self._lock:
                    self._calls.discard(command.call_id)
                self._answer(command, failure)
            case _:
                pass
        self._link.send(Crashed("worker.inbox", trace(error)))

    def _put(self, command: Command) -> None:
        match command:
            case Submit(task=task):
                self._put_task(task)
            case CountTokens(prompt=prompt):
                self._put_texts(command, (prompt,))
            case EmbedTexts(inputs=inputs):
                self._put_texts(command, inputs)
            case Cancel(task_ids=task_ids):
                self._put_cancel(command)
                self._interrupt(frozenset(task_ids))
            case Credit():
                self._put_credit(command)
            case AbandonCall(call_id=call_id):
                with self._lock:
                    self._calls.discard(call_id)
                    self._queue.put(command)
            case _:
                self._queue.put(command)

    def put_stop(self) -> None:
        """Queues the end; called by the reader thread when the socket is closed."""
        for instance in self._instances.all():
            self._interrupt(frozenset(instance.tasks))
        self._queue.put(StopWorker())

    def take(self, *, wait_seconds: float) -> list[Work]:
        """All that has come; waits for the first where nothing has."""
        work: list[Work] = []
        try:
            if wait_seconds > 0:
                work.append(self._queue.get(timeout=wait_seconds))
            while True:
                work.append(self._queue.get_nowait())
        except queue.Empty:
            return work

    def _interrupt(self, task_ids: frozenset[int]) -> None:
        for instance in self._instances.all():
            if isinstance(instance.model, Interruptible):
                with instance.held() as is_held:  # it must not be freed under us
                    if is_held:
                        instance.model.interrupt(task_ids)

    def _hurry(self, instance_id: str) -> None:
        """Somebody waits who goes before batch work."""
        instance = self._instances.get(instance_id)
        if instance is not None and isinstance(instance.model, Interruptible):
            with instance.held() as is_held:  # likewise
                if is_held:
                    instance.model.hurry()

    def _put_task(self, task: Task) -> None:
        with self._lock:
            self._credits[task.task_id] = 0
        if not is_long((task.prompt,)):
            self._tokenise_task(task)
            return
        try:
            displaced = self._prompts.put(
                task, principal=task.principal, work_class=task.work_class
            )
        except FleetError as error:
            self._hand_over(task, error)
        else:
            if displaced is not None:
                self._hand_over(displaced, self._prompts.full())

    def _put_texts(self, call: CountTokens | EmbedTexts, prompts: tuple[Prompt, ...]) -> None:
        with self._lock:
            self._calls.add(call.call_id)
        if not is_long(prompts):
            self._tokenise_texts(call)
            return
        try:
            displaced = self._texts.put(call, principal=call.principal)
        except FleetError as error:
            self._answer_waiting(call, error)
        else:
            if displaced is not None:
                self._answer_waiting(displaced, self._texts.full())

    def _put_cancel(self, command: Cancel) -> None:
        with self._lock:
            for task_id in command.task_ids:
                self._credits.pop(task_id, None)
            self._queue.put(command)

    def _put_credit(self, command: Credit) -> None:
        with self._lock:
            for task_id, tokens in command.grants:
                if task_id in self._credits:
                    self._credits[task_id] += tokens
            rest = tuple(grant for grant in command.grants if grant[0] not in self._credits)
            if rest:
                self._queue.put(Credit(rest))

    def _tokenise_task(self, task: Task) -> None:
        try:
            ids = token_ids(
                self._instances,
                task.instance_id,
                task.prompt,
                is_wanted=lambda: task.task_id in self._credits,
            )
            if task.constraint is None:
                self._hand_over(task, ids)
            else:
                displaced = self._constraints.put(
                    TokenisedTask(task, ids), principal=task.principal, work_class=task.work_class
                )
                if displaced is not None:
                    self._hand_over(displaced.task, self._constraints.full())
        except FleetError as error:
            self._hand_over(task, error)
        except Abandoned:
            return
        except BaseException as error:  # noqa: BLE001 - the thread tokenises for everybody
            self._give_up(Submit(task), error)

    def _compile(self, tokenised: TokenisedTask) -> None:
        """Has the model know a task's constraint before the engine loop sees it."""
        task = tokenised.task
        try:
            with self._instances.holding(task.instance_id) as instance:
                if task.constraint is not None and task.task_id in self._credits:
                    instance.model.prepare(task.constraint)
            self._hand_over(task, tokenised.token_ids)
        except FleetError as error:
            self._hand_over(task, error)
        except BaseException as error:  # noqa: BLE001 - the thread compiles for everybody
            self._give_up(Submit(task), error)

    def _hand_over(self, task: Task, ids: Sequence[int] | FleetError) -> None:
        """Queues a task with the credit that came meanwhile, unless it was cancelled."""
        with self._lock:
            credit = self._credits.pop(task.task_id, None)
            if credit is None:
                return
            self._queue.put(TokenisedTask(task, ids))
            if credit:
                self._queue.put(Credit(((task.task_id, credit),)))
        if task.work_class is not WorkClass.BATCH:
            self._hurry(task.instance_id)

    def _tokenise_texts(self, call: CountTokens | EmbedTexts) -> None:
        prompts = (call.prompt,) if isinstance(call, CountTokens) else call.inputs
        purpose = _purpose(call)
        try:
            ids = [
                token_ids(
                    self._instances,
                    call.instance_id,
                    prompt,
                    purpose=purpose,
                    is_wanted=lambda: call.call_id in self._calls,
                )
                for prompt in prompts
            ]
        except FleetError as error:
            self._answer_waiting(call, error)
        except Abandoned:
            return
        except BaseException as error:  # noqa: BLE001 - likewise
            self._give_up(call, error)
        else:
            self._answer_waiting(call, ids)

    def _answer_waiting(
        self, call: CountTokens | EmbedTexts, ids: list[list[int]] | FleetError
    ) -> None:
        """Goes on with a call whose texts are tokenised, unless it was abandoned."""
        with self._lock:
            if call.call_id in self._calls:
                self._calls.discard(call.call_id)
                self._answer(call, ids)

    def _answer(self, call: CountTokens | EmbedTexts, ids: list[list[int]] | FleetError) -> None:
        if isinstance(call, EmbedTexts):
            self._queue.put(TokenisedTexts(call, ids))
        elif isinstance(ids, FleetError):
            self._link.send(Counted(call.call_id, error=(ids.reason.value, ids.message)))
        else:
            known = tuple(ids[0]) if call.wants_ids else ()
            self._link.send(Counted(call.call_id, len(ids[0]), known))


def _purpose(call: CountTokens | EmbedTexts) -> Purpose:
    if isinstance(call, CountTokens):
        return Purpose.COUNT
    return Purpose.BEGINNING if call.truncate else Purpose.PROMPT

"""What the reader thread hands to the engine loop: commands with their text tokenised."""

from __future__ import annotations

import dataclasses
import queue
from collections.abc import Sequence

from services.backplane.errors import FleetError
from services.neuron.engine import Interruptible, Task
from services.neuron.frames import (
    AbandonLoad,
    Cancel,
    Command,
    Count,
    Counted,
    Credit,
    Embed,
    Load,
    Stop,
    Submit,
    Unload,
)
from services.neuron.worker.instances import Instances
from services.neuron.worker.link import Link


@dataclasses.dataclass(frozen=True, slots=True)
class TokenisedTask:
    """A task, ready to be submitted, or why it is not."""

    task: Task
    token_ids: Sequence[int] | FleetError


@dataclasses.dataclass(frozen=True, slots=True)
class TokenisedTexts:
    """Texts to embed, or why they cannot be."""

    call: Embed
    inputs: list[list[int]] | FleetError


Work = Load | AbandonLoad | Unload | TokenisedTask | Cancel | Credit | TokenisedTexts | Stop


class Inbox:
    """A queue in the order in which commands came.

    Unbounded, but short: the daemon bounds what is in flight, and the loop empties it every turn.
    """

    def __init__(self, instances: Instances, link: Link) -> None:
        self._instances = instances
        self._link = link
        self._queue: queue.SimpleQueue[Work] = queue.SimpleQueue()

    def put_command(self, command: Command) -> None:
        """Tokenises what has text and queues the rest; called by the reader thread."""
        match command:
            case Submit(task=task):
                self._queue.put(TokenisedTask(task, self._token_ids(task)))
            case Count():
                self._link.send(self._counted(command))
            case Embed():
                self._queue.put(TokenisedTexts(command, self._inputs(command)))
            case Cancel(task_ids=task_ids):
                self._interrupt(frozenset(task_ids))
                self._queue.put(command)
            case _:
                self._queue.put(command)

    def put_stop(self) -> None:
        """Queues the end; called by the reader thread when the socket is closed."""
        for instance in self._instances.all():
            self._interrupt(frozenset(instance.tasks))
        self._queue.put(Stop())

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
                with instance.lock:  # it must not be freed under us
                    if self._instances.get(instance.instance_id) is instance:
                        instance.model.interrupt(task_ids)

    def _token_ids(self, task: Task) -> Sequence[int] | FleetError:
        try:
            return self._instances.tokenize(task.instance_id, (task.prompt,))[0]
        except FleetError as error:
            return error

    def _inputs(self, call: Embed) -> list[list[int]] | FleetError:
        try:
            return self._instances.tokenize(call.instance_id, call.inputs)
        except FleetError as error:
            return error

    def _counted(self, call: Count) -> Counted:
        try:
            ids = self._instances.tokenize(call.instance_id, (call.prompt,))[0]
        except FleetError as error:
            return Counted(call.call_id, error=(error.reason.value, error.message))
        return Counted(call.call_id, tuple(ids))

"""What is done beside the engine loop: text to token ids, and constraints compiled."""

from __future__ import annotations

import enum
import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

import msgspec

from services.backplane.errors import FleetError, Reason, context_too_long
from services.backplane.rpc.written_text import most_counted
from services.neuron.engine_api.engine import LoadedModel
from services.neuron.engine_api.task import Prompt, Segment, WorkClass
from services.neuron.engines.common.admission import AdmissionQueue, QueueFullError
from services.neuron.worker.models import WorkerInstance, WorkerInstances, gone

LONG_CHARACTERS: Final = 64 << 10
"""Longer texts take a tokeniser so long that nothing else should wait for them."""

_SURELY_MEASURED: Final = 8
"""Prompts of so many characters per token of the context are measured before they are tokenised.
Text has about four: what is shorter is likely to fit, and would be tokenised twice."""

_MOST_WAITING: Final = 32
_RETRY_SECONDS: Final = 1.0

_CUT_TOKENS: Final = 1024
"""Where a text is cut, a token breaks into as many as it has bytes at most."""

Item = TypeVar("Item")


class Purpose(enum.Enum):
    """What token ids are for.

    Members:
        PROMPT: to be continued or embedded: they have to fit the model's context.
        COUNT: to be counted: see `most_counted`.
        BEGINNING: to be embedded, cut to the model's context: what is beyond it counts for nothing.
    """

    PROMPT = enum.auto()
    COUNT = enum.auto()
    BEGINNING = enum.auto()


class Abandoned(Exception):  # noqa: N818 - the field's word for it
    """Raised where tokenising stops because nobody wants the result any more."""


def is_long(prompts: Sequence[Prompt]) -> bool:
    """Whether tokenising these would make others wait."""
    return sum(_size(prompt) for prompt in prompts) > LONG_CHARACTERS


def token_ids(
    instances: WorkerInstances,
    instance_id: str,
    prompt: Prompt,
    *,
    purpose: Purpose = Purpose.PROMPT,
    is_wanted: Callable[[], bool] = lambda: True,
) -> list[int]:
    """Token ids of a prompt.

    Args:
        instances: of this worker.
        instance_id: which of them.
        prompt: what is tokenised.
        purpose: what they are for, which says how many there may be.
        is_wanted: asked between two pieces of work.

    Raises:
        FleetError: CONTEXT_TOO_LONG, INSTANCE_GONE, or the model refuses the prompt.
        Abandoned: it is not wanted any more.
    """
    with instances.holding(instance_id) as instance:
        context = instance.model.info.max_context_tokens
        if purpose is Purpose.BEGINNING:
            return _beginning(instance.model, prompt, context)
        most = context if purpose is Purpose.PROMPT else most_counted(context)
        _refuse_endless(instance, prompt, most, is_wanted)
        if not is_wanted():
            raise Abandoned
        return instance.model.tokenize(prompt)


def _beginning(model: LoadedModel, prompt: Prompt, most: int) -> list[int]:
    """Token ids of a text, of which no more than the first `most` are right where it is longer."""
    size = _SURELY_MEASURED * most
    while size < _size(prompt) and not any(segment.control for segment in prompt.segments):
        text = "".join(segment.text for segment in prompt.segments)
        cut = msgspec.structs.replace(prompt, segments=(Segment(text[:size]),))
        ids = model.tokenize(cut)
        if len(ids) > most + _CUT_TOKENS:
            return ids
        size *= 4
    return model.tokenize(prompt)


def _refuse_endless(
    instance: WorkerInstance, prompt: Prompt, most: int, is_wanted: Callable[[], bool]
) -> None:
    if _size(prompt) <= _SURELY_MEASURED * most:
        return
    for least in instance.model.min_token_counts(prompt):
        if least > most:
            holds = instance.model.info.max_context_tokens
            raise context_too_long(prompt_tokens=least, max_tokens=holds, is_minimum=True)
        if not is_wanted():
            raise Abandoned
        if instance.is_leaving:
            raise gone(instance.instance_id)


def _size(prompt: Prompt) -> int:
    if prompt.token_ids is not None:
        return len(prompt.token_ids)
    return sum(len(segment.text) for segment in prompt.segments)


class WorkThread(Generic[Item]):
    """A thread that does long work beside the reader thread, in the order of an `AdmissionQueue`.

    Bound: 32 items wait, or as many as it is made for; where they do, principals share the places.
    """

    def __init__(
        self,
        name: str,
        do: Callable[[Item], None],
        *,
        on_broken: Callable[[], None],
        most_waiting: int = _MOST_WAITING,
    ) -> None:
        """Starts the thread at the first item.

        Args:
            name: of the thread.
            do: does one item; called by the thread.
            on_broken: called by the thread when `do` raised what it must not; it then ends.
            most_waiting: so many items wait at most.
        """
        self._do = do
        self._on_broken = on_broken
        self._most_waiting = most_waiting
        self._items = AdmissionQueue[Item](max_queued=most_waiting, timeout_seconds=math.inf)
        self._keys = itertools.count()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def put(
        self, item: Item, *, principal: str, work_class: WorkClass = WorkClass.DEFAULT
    ) -> Item | None:
        """Queues an item.

        Returns: what had to make room for it; see `AdmissionQueue.push`. It is not done then.

        Raises:
            FleetError: QUEUE_FULL.
        """
        with self._changed:
            if not self._thread.ident:
                self._thread.start()
            try:
                displaced = self._items.push(
                    item,
                    key=next(self._keys),
                    principal=principal,
                    work_class=work_class,
                    now=time.monotonic(),
                )
            except QueueFullError:
                raise self.full() from None
            self._changed.notify()
        return None if displaced is None else displaced.item

    def full(self) -> FleetError:
        """The error for an item that finds the queue full: QUEUE_FULL."""
        return FleetError(
            Reason.QUEUE_FULL,
            f"{self._most_waiting} {self._thread.name} wait for the engine already.",
            retry_after_seconds=_RETRY_SECONDS,
        )

    def _run(self) -> None:
        try:
            while True:
                self._do(self._next())
        finally:
            self._on_broken()

    def _next(self) -> Item:
        with self._changed:
            while (waiting := self._items.pop()) is None:
                self._changed.wait()
            return waiting.item

"""The half of `LoadedModel` that does not depend on the engine: for generators and embedders."""

from __future__ import annotations

import abc
import math
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Generic, TypeVar

from typing_extensions import override

from services.backplane.errors import FleetError, Reason, context_too_long
from services.neuron.engine_api.device_time import StepTimes
from services.neuron.engine_api.engine import LoadedModel
from services.neuron.engine_api.events import NO_NUMBER, Event, Failed, failed
from services.neuron.engine_api.model import ModelInfo, ModelStats
from services.neuron.engine_api.task import Constraint, Prompt, Task
from services.neuron.engines.common.task_queue import TaskQueue
from services.neuron.engines.common.tokeniser import Tokeniser

Item = TypeVar("Item")


class TokenModel(LoadedModel, abc.ABC):
    """A loaded model with its tokeniser, and the events that its next step tells."""

    def __init__(self, tokeniser: Tokeniser, info: ModelInfo) -> None:
        self._tokeniser = tokeniser
        self._info = info
        self._events: list[Event] = []

    @property
    @override
    def info(self) -> ModelInfo:
        return self._info

    @override
    def tokenize(self, prompt: Prompt) -> list[int]:
        return self._tokeniser.tokenize(prompt)

    @override
    def min_token_counts(self, prompt: Prompt) -> Iterator[int]:
        return self._tokeniser.min_token_counts(prompt)

    def _take_events(self) -> list[Event]:
        events, self._events = self._events, []
        return events


class GeneratingModel(TokenModel, Generic[Item]):
    """A model that generates: tasks wait in a fair queue until the engine has a place for them.

    `Item` is what the engine makes of a task before it waits.
    """

    def __init__(self, tokeniser: Tokeniser, info: ModelInfo, queue: TaskQueue[Item]) -> None:
        super().__init__(tokeniser, info)
        self._queue = queue
        self._meter = queue.meter

    @override
    def submit(self, task: Task, token_ids: Sequence[int]) -> None:
        began = time.perf_counter_ns()
        try:
            item = self._receive(task, token_ids)
            if task.images:  # they are read by the devices
                self._meter.charge(task, time.perf_counter_ns() - began)
            displaced = self._queue.push(item, task, now=time.monotonic())
        except FleetError as error:
            self._events.append(failed(task.task_id, error))
            return
        if displaced is not None:
            self._drop(*displaced)

    @override
    def step(self) -> list[Event]:
        """Ends what has waited too long, admits what has a place, runs one step of the batch.

        Raises:
            EnginePoisoned: the process must be replaced.
        """
        began, now = time.perf_counter_ns(), time.monotonic()
        self._expire(now)
        self._admit(now)
        self._events += self._queue.moves(now)
        self._run_step()
        self._meter.end_step(time.perf_counter_ns() - began)
        return self._take_events()

    @override
    def take_times(self, ended: Collection[int] | None = None) -> StepTimes:
        return self._meter.take(ended)

    @override
    def embed(self, inputs: Sequence[Sequence[int]]) -> list[list[float]]:
        """Refused: it was not loaded to embed."""
        raise FleetError(Reason.WRONG_MODALITY, "This model generates; it makes no embeddings.")

    @abc.abstractmethod
    def _receive(self, task: Task, token_ids: Sequence[int]) -> Item:
        """Prepares a task.

        Raises:
            FleetError: it can never run.
        """

    def _expire(self, now: float) -> None:
        """Fails what has waited too long by now (monotonic seconds)."""
        for item, failure in self._queue.expire(now):
            self._drop(item, failure)

    def _drop(self, item: Item, failure: Failed) -> None:
        """Fails what has left the queue without a turn."""
        self._events.append(failure)

    @abc.abstractmethod
    def _admit(self, now: float) -> None:
        """Takes out of the queue what has a place now (monotonic seconds)."""

    @abc.abstractmethod
    def _run_step(self) -> None:
        """One pass through the model with all that were admitted.

        Notes its events, and in the meter what it computes.
        """


class EmbeddingModel(TokenModel):
    """A model that embeds. A task is refused, and told so at the next step."""

    def __init__(self, tokeniser: Tokeniser, info: ModelInfo) -> None:
        super().__init__(tokeniser, info)
        self._steps = 0

    @override
    def submit(self, task: Task, token_ids: Sequence[int]) -> None:
        error = FleetError(Reason.WRONG_MODALITY, "This is an embedding model; it cannot generate.")
        self._events.append(failed(task.task_id, error))

    @override
    def prepare(self, constraint: Constraint) -> None:
        """Does nothing: no task runs."""

    @override
    def cancel(self, task_id: int) -> None:
        """Does nothing: no task runs."""

    @override
    def credit(self, task_id: int, tokens: int) -> None:
        """Does nothing: no task runs."""

    @property
    @override
    def has_work(self) -> bool:
        """True if a refusal has to be told."""
        return bool(self._events)

    @override
    def step(self) -> list[Event]:
        """Tells refusals."""
        return self._take_events()

    @override
    def embed(self, inputs: Sequence[Sequence[int]]) -> list[list[float]]:
        """One vector of length 1 (l2) per input.

        Raises:
            FleetError: CONTEXT_TOO_LONG, an input is longer than the model reads; BAD_REQUEST, an
                input is empty; ENGINE_FAILED, the model makes no numbers of one.
            EnginePoisoned: the library failed.
        """
        limit = self._info.max_context_tokens
        for position, tokens in enumerate(inputs):
            if not tokens:
                field = f"input.{position}"
                raise FleetError(Reason.BAD_REQUEST, "The text is empty.", field=field)
            if len(tokens) > limit:
                raise context_too_long(prompt_tokens=len(tokens), max_tokens=limit)
        vectors = self._vectors(inputs)
        if not all(math.isfinite(sum(vector)) for vector in vectors):
            raise FleetError(Reason.ENGINE_FAILED, NO_NUMBER)
        return vectors

    @override
    def take_times(self, ended: Collection[int] | None = None) -> StepTimes:
        """None: it has no steps, and the worker measures its calls."""
        return StepTimes((), 0)

    @override
    def stats(self) -> ModelStats:
        """How busy it is: never between two calls."""
        return ModelStats(steps=self._steps)

    @abc.abstractmethod
    def _vectors(self, inputs: Sequence[Sequence[int]]) -> list[list[float]]:
        """One vector of length 1 per input; inputs have been checked. Counts passes in `_steps`."""

"""Embedding calls, done in slices between the steps of models that generate."""

from __future__ import annotations

import time
from collections import deque
from typing import Final

from services.backplane.errors import FleetError, Reason, context_too_long
from services.neuron.engine_api.events import trace
from services.neuron.engine_api.frames import Crashed, Embedded, EmbedTexts
from services.neuron.engine_api.model import EnginePoisoned
from services.neuron.worker.charges import Charges
from services.neuron.worker.link import DaemonLink
from services.neuron.worker.models import WorkerInstance, WorkerInstances, gone

_SLICE_TOKENS: Final = 512


class _Job:
    def __init__(self, call: EmbedTexts, inputs: list[list[int]]) -> None:
        self.call = call
        self.inputs = inputs
        self.vectors: list[tuple[float, ...]] = []

    def next_slice(self) -> list[list[int]]:
        """Inputs of at most 512 tokens together, at least one."""
        start = end = len(self.vectors)
        tokens = 0
        while end < len(self.inputs):
            tokens += len(self.inputs[end])
            if end > start and tokens > _SLICE_TOKENS:
                break
            end += 1
        return self.inputs[start:end]


class Embeddings:
    """The embedding calls in progress: principals take turns, and a slice of each call in turn.

    So a small call does not wait for the whole of a large one, nor for all of another principal's.
    Beside generations they take half of the time at most: as long as a slice took, the models that
    generate are alone after it.
    The daemon bounds how many calls there are.
    """

    def __init__(self, instances: WorkerInstances, link: DaemonLink, charges: Charges) -> None:
        self._instances = instances
        self._link = link
        self._charges = charges
        self._jobs: deque[_Job] = deque()
        self._turns = 0
        self._last_turn: dict[str, int] = {}
        self._pause_until = 0.0

    @property
    def is_busy(self) -> bool:
        """True while a call is not answered."""
        return bool(self._jobs)

    def begin(self, call: EmbedTexts, inputs: list[list[int]] | FleetError) -> None:
        """Queues a call; one that cannot be served is answered at once."""
        try:
            if isinstance(inputs, FleetError):
                raise inputs
            self._jobs.append(_Job(call, self._fitted(call, inputs)))
        except FleetError as error:
            self.refuse(call, error)

    def abandon(self, call_id: int) -> None:
        """Drops a call, if it is still in progress; no answer follows."""
        self._jobs = deque(job for job in self._jobs if job.call.call_id != call_id)

    def advance(self, *, beside_others: bool) -> None:
        """Embeds one slice of the call whose turn it is.

        Args:
            beside_others: models that generate wait meanwhile.

        Raises:
            EnginePoisoned: the process must be replaced.
        """
        started = time.monotonic()
        if not self._jobs or (beside_others and started < self._pause_until):
            return
        job = self._take_turn()
        try:
            instance = self._instance(job.call)
            with self._charges.embedding(instance, job.call.principal):
                part = instance.model.embed(job.next_slice())
        except FleetError as error:
            self._jobs.remove(job)
            self.refuse(job.call, error)
            return
        except (EnginePoisoned, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - it ends this call alone
            self._jobs.remove(job)
            self.refuse(job.call, FleetError(Reason.INTERNAL, "The engine failed at this."))
            self._link.send(Crashed("worker.embed", trace(error)))
            return
        ended = time.monotonic()
        self._pause_until = ended + (ended - started)
        self._jobs.remove(job)
        job.vectors += [tuple(vector) for vector in part]
        if len(job.vectors) < len(job.inputs):
            self._jobs.append(job)
        else:
            tokens = sum(len(tokens) for tokens in job.inputs)
            self._link.send(Embedded(job.call.call_id, tuple(job.vectors), tokens))

    def _take_turn(self) -> _Job:
        """The first call of the principal whose last turn is longest ago."""
        job = min(self._jobs, key=lambda one: self._last_turn.get(one.call.principal, 0))
        self._turns += 1
        present = {one.call.principal for one in self._jobs}
        self._last_turn = {p: t for p, t in self._last_turn.items() if p in present}
        self._last_turn[job.call.principal] = self._turns
        return job

    def _fitted(self, call: EmbedTexts, inputs: list[list[int]]) -> list[list[int]]:
        limit = self._instance(call).model.info.max_context_tokens
        for tokens in inputs:
            if len(tokens) > limit and not call.truncate:
                raise context_too_long(prompt_tokens=len(tokens), max_tokens=limit)
        # The last token stays: it is the end mark ([SEP]) that the model was trained with.
        return [t if len(t) <= limit else [*t[: limit - 1], t[-1]] for t in inputs]

    def _instance(self, call: EmbedTexts) -> WorkerInstance:
        instance = self._instances.get(call.instance_id)
        if instance is None:
            raise gone(call.instance_id)
        return instance

    def refuse(self, call: EmbedTexts, error: FleetError) -> None:
        """Answers a call with an error."""
        self._link.send(Embedded(call.call_id, error=(error.reason.value, error.message)))

"""A loaded generator: who runs, where, and for how long; the steps themselves are `Forward`'s."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence

from typing_extensions import override

from services.neuron.engine_api.cache import CacheChanges, Comparison, ReportsCache
from services.neuron.engine_api.engine import Hibernating, Interruptible
from services.neuron.engine_api.events import crashed
from services.neuron.engine_api.model import EnginePoisoned, ModelInfo, ModelStats
from services.neuron.engine_api.task import Constraint, Task
from services.neuron.engines.common.admission import Waiting
from services.neuron.engines.common.constraint import ConstraintCompiler
from services.neuron.engines.common.kv_store.cache_reporter import CacheReporter
from services.neuron.engines.common.task_checks import context_tokens, start_constraint
from services.neuron.engines.common.task_queue import TaskQueue
from services.neuron.engines.common.token_model import GeneratingModel
from services.neuron.engines.common.transcript import Transcript
from services.neuron.engines.llamacpp.batch.checkpoints import Checkpoints, places
from services.neuron.engines.llamacpp.batch.context import Context
from services.neuron.engines.llamacpp.batch.forward import Forward
from services.neuron.engines.llamacpp.batch.hibernation import SlotHibernation
from services.neuron.engines.llamacpp.batch.intake import Prepared, prepare
from services.neuron.engines.llamacpp.batch.sampling import Sampler
from services.neuron.engines.llamacpp.batch.slot_table import SlotTable
from services.neuron.engines.llamacpp.batch.slots import CacheSlot
from services.neuron.engines.llamacpp.batch.streams import Stream
from services.neuron.engines.llamacpp.batch.suspension import Suspension
from services.neuron.engines.llamacpp.library.library import Library
from services.neuron.engines.llamacpp.model.tokeniser import GgufTokeniser


class Loop(GeneratingModel[Prepared], Interruptible, Hibernating, ReportsCache):
    """Generates over one llama.cpp context."""

    def __init__(
        self,
        *,
        library: Library,
        context: Context,
        tokeniser: GgufTokeniser,
        info: ModelInfo,
        compiler: ConstraintCompiler,
        queue: TaskQueue[Prepared],
        prefill_tokens: int,
        checkpoint_bytes: int,
        hibernation: SlotHibernation,
        where: str = "",
    ) -> None:
        super().__init__(tokeniser, info, queue)
        self._library = library
        self._context = context
        self._end_ids = tokeniser.end_ids
        self._pieces = tokeniser.pieces
        self._compiler = compiler
        slots = [CacheSlot(index) for index in range(info.max_sequences)]
        checkpoints = Checkpoints(context, slots, most_bytes=checkpoint_bytes)
        self._hibernation = hibernation
        self._control_ids = frozenset(tokeniser.control_tokens.values())
        self._slots = SlotTable(
            context,
            slots,
            checkpoints=checkpoints,
            hibernation=hibernation,
            control_ids=self._control_ids,
        )
        self._reporter = CacheReporter(
            lambda: slots,
            reusable=checkpoints.reusable,
            hibernation=hibernation,
            seconds_per_request=lambda: queue.seconds_per_request,
        )
        self._forward = Forward(
            context,
            checkpoints=checkpoints,
            sequences=info.max_sequences,
            prefill_tokens=prefill_tokens,
            pieces=tokeniser.pieces,
            meter=queue.meter,
            where=where,
        )
        self._running: dict[int, Stream] = {}
        self._suspension = Suspension(context, queue, places=info.max_sequences)

    @override
    def cancel(self, task_id: int) -> None:
        if self._queue.remove(task_id):
            return
        stream = self._stream(task_id)
        if stream is not None:
            self._release(stream)

    @override
    def prepare(self, constraint: Constraint) -> None:
        start_constraint(self._compiler, constraint, ())

    @override
    def interrupt(self, task_ids: Collection[int]) -> None:
        self._forward.interrupt(task_ids)

    @override
    def hurry(self) -> None:
        self._forward.hurry()

    @override
    def credit(self, task_id: int, tokens: int) -> None:
        stream = self._stream(task_id)
        if stream is not None:
            stream.transcript.add_credit(tokens)
            return
        prepared = self._queue.get(task_id)
        if prepared is not None:
            prepared.extra_credit += tokens

    @property
    @override
    def has_work(self) -> bool:
        if self._events or any(stream.readable for stream in self._running.values()):
            return True
        return self._may_resume() or self._may_admit()

    @override
    def stats(self) -> ModelStats:
        return ModelStats(
            active=len(self._running),
            queued=len(self._queue) + len(self._suspension),
            cache_tokens_used=self._slots.used_tokens,
            steps=self._forward.steps,
        )

    @override
    def cache_changes(self, now: float) -> CacheChanges | None:
        return self._reporter.news(now)

    @override
    def compare(self, token_ids: Sequence[int], principal: str) -> Comparison:
        return self._reporter.compare(token_ids, principal, pieces=self._pieces)

    @override
    def hibernate(self) -> tuple[int, int]:
        return self._slots.hibernate()

    @override
    def close(self) -> None:
        for stream in [*self._running.values(), *self._suspension]:
            self._release(stream)
        self._context.close()

    @override
    def _receive(self, task: Task, token_ids: Sequence[int]) -> Prepared:
        return prepare(task, token_ids, info=self._info, compiler=self._compiler)

    @override
    def _admit(self, now: float) -> None:
        """Gives places to what waits.

        1. A suspended stream that is due goes first; else see `Yielding.may_return`.
        2. Where no place is free, a stream may have to make one: see `Suspension.victim`.
        """
        while True:
            if self._may_resume():
                self._resume()
                continue
            is_full = len(self._running) == len(self._slots)
            popped = self._displacing(now) if is_full else self._queue.pop(self._tasks())
            if popped is None:
                return
            self._suspension.note_admission()
            try:
                self._start(popped, now)
            except (EnginePoisoned, KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001 - it ends this task alone
                self._events.append(crashed(popped.key, error))

    def _may_resume(self) -> bool:
        """A suspended stream would get a place now."""
        is_ready = not self._context.has_copies_to_make
        return is_ready and self._suspension.may_return(self._running.values())

    def _may_admit(self) -> bool:
        """Somebody would get a place now, if need be another's."""
        if len(self._running) < len(self._slots):
            return self._queue.peek(self._tasks()) is not None
        return self._suspension.found(self._running.values(), time.monotonic()) is not None

    def _displacing(self, now: float) -> Waiting[Prepared] | None:
        """Gives a running stream's place to what waits; None where none has to yield."""
        found = self._suspension.found(self._running.values(), now)
        if found is None or not self._suspension.suspend(found[1]):
            return None
        waiting, victim = found
        del self._running[victim.task.task_id]
        self._queue.take(waiting)
        return waiting

    def _resume(self) -> None:
        stream, is_back = self._suspension.resume(self._slots.take_any())
        self._running[stream.task.task_id] = stream
        if not is_back:
            error = RuntimeError("Its cache could not be brought back.")
            self._events.append(crashed(stream.task.task_id, error))
            self._release(stream)

    @override
    def _run_step(self) -> None:
        self._events += self._forward.run(self._running.values())
        for stream in [s for s in self._running.values() if s.is_done]:
            self._queue.note_end(time.monotonic() - stream.started_at)
            self._hibernation.note_reading(*stream.reading)
            self._release(stream)

    def _start(self, waiting: Waiting[Prepared], now: float) -> None:
        prepared = waiting.item
        task = prepared.task
        transcript = Transcript(
            task,
            room_tokens=context_tokens(task, self._info.max_context_tokens)
            - prepared.prompt_tokens,
            end_token_ids=self._end_ids,
            piece=self._pieces.__getitem__,
        )
        transcript.add_credit(prepared.extra_credit)
        sampler = self._new_sampler(prepared)  # before the slot: it may raise
        slot = self._slots.take(prepared)
        stream = Stream(
            prepared,
            slot=slot,
            transcript=transcript,
            sampler=sampler,
            queued_seconds=now - waiting.since,
            checkpoint_at=self._checkpoint_places(prepared, len(slot.tokens)),
        )
        self._running[task.task_id] = stream
        self._events.append(stream.started)

    def _stream(self, task_id: int) -> Stream | None:
        """The stream of a task that was admitted, or None."""
        return self._running.get(task_id) or self._suspension.find(task_id)

    def _tasks(self) -> Iterator[Task]:
        return (stream.task for stream in self._running.values())

    def _new_sampler(self, prepared: Prepared) -> Sampler:
        sampler = Sampler(
            self._library,
            prepared.task.sampling,
            vocabulary_size=self._info.vocabulary_size,
            window=self._info.max_context_tokens,
            position=len(prepared.task.resume_token_ids),
        )
        sampler.observe_prompt(prepared.tokens[: prepared.prompt_tokens])
        sampler.observe_output(prepared.task.resume_token_ids)
        return sampler

    def _checkpoint_places(self, prepared: Prepared, cached: int) -> list[int]:
        prompt = prepared.tokens[: prepared.prompt_tokens]
        needs = self._context.needs_checkpoints
        return places(prompt, self._control_ids, after=cached) if needs else []

    def _release(self, stream: Stream) -> None:
        """Ends a run; what its slot holds stays, for prompts that begin alike."""
        if self._running.pop(stream.task.task_id, None) is not None:
            stream.slot.is_busy = False
        self._suspension.forget(stream)
        stream.close()

"""A loaded generator: admits, steps the library's generator, and survives its exceptions.

The library's own queue is never used: a task enters it only when its pages are free and the step's
share of prompt tokens has room, and who is next is decided by our queue. An exception out of
`iterate` ends that generator; the loop makes another over the same cache and goes on with every
stream behind the tokens it has. While a stream is under suspicion it re-enters alone, so that the
one that makes the library raise is found and only it fails.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence

from typing_extensions import override

from services.backplane.errors import Reason
from services.neuron.engine_api.cache import CacheChanges, Comparison, ReportsCache
from services.neuron.engine_api.engine import Hibernating
from services.neuron.engine_api.events import NO_NUMBER, Failed, Started
from services.neuron.engine_api.model import EnginePoisoned, ModelInfo, ModelStats
from services.neuron.engine_api.task import Constraint, Task
from services.neuron.engines.common.task_queue import TaskQueue
from services.neuron.engines.exllamav2.batch.fault_history import FaultHistory
from services.neuron.engines.exllamav2.batch.placing import PlacingModel
from services.neuron.engines.exllamav2.batch.stream_factory import StreamFactory
from services.neuron.engines.exllamav2.batch.streams import Stream
from services.neuron.engines.exllamav2.library.faults import Fault, classify, one_line
from services.neuron.engines.exllamav2.model.generators import GeneratorParts
from services.neuron.engines.exllamav2.paging.hibernation import PageHibernation
from services.neuron.engines.exllamav2.text.tokeniser import JsonTokeniser


class Loop(PlacingModel, Hibernating, ReportsCache):
    """Generates with ExLlamaV2's dynamic generator."""

    def __init__(
        self,
        *,
        parts: GeneratorParts,
        tokeniser: JsonTokeniser,
        streams: StreamFactory,
        info: ModelInfo,
        queue: TaskQueue[Stream],
        hibernation: PageHibernation,
    ) -> None:
        super().__init__(
            parts=parts,
            tokeniser=tokeniser,
            streams=streams,
            info=info,
            queue=queue,
            hibernation=hibernation,
        )
        self._faults = FaultHistory()
        self._steps = 0
        self._pieces = tokeniser.vocabulary.pieces

    @override
    def submit(self, task: Task, token_ids: Sequence[int]) -> None:
        super().submit(task, token_ids)
        stream = self._queue.get(task.task_id)
        if stream is not None:
            self._streams[task.task_id] = stream

    @override
    def prepare(self, constraint: Constraint) -> None:
        self._factory.prepare(constraint)

    @override
    def cancel(self, task_id: int) -> None:
        """Forgets a task at once; its pages are free for the next step."""
        stream = self._streams.get(task_id)
        if stream is not None:
            self._queue.remove(task_id)
            self._forget(stream)

    @override
    def credit(self, task_id: int, tokens: int) -> None:
        stream = self._streams.get(task_id)
        if stream is None:
            return
        stream.transcript.add_credit(tokens)
        waits = self._queue.get(task_id) is not None or stream in self._returning
        if stream.job is None and not waits and self._suspension.find(task_id) is None:
            self._returning.append(stream)

    @property
    @override
    def has_work(self) -> bool:
        if self._events or self._running or self._returning:
            return True
        placed = self._placed()
        if self._suspension.may_return(placed):
            return True
        if len(placed) < self._info.max_sequences:
            return self._queue.peek(stream.task for stream in placed) is not None
        return self._suspension.found(placed, time.monotonic()) is not None

    @override
    def stats(self) -> ModelStats:
        """How busy it is. Streams that wait for credit hold no cache and count as active."""
        used = self._parts.used_tokens(self._generator)
        queued = len(self._queue) + len(self._suspension)
        return ModelStats(len(self._streams) - queued, queued, used, self._steps)

    @override
    def cache_changes(self, now: float) -> CacheChanges | None:
        return self._cache.news(now)

    @override
    def compare(self, token_ids: Sequence[int], principal: str) -> Comparison:
        return self._cache.compare(token_ids, principal, pieces=self._pieces)

    @override
    def hibernate(self) -> tuple[int, int]:
        return self._cache.save(self._streams.values())

    @override
    def close(self) -> None:
        for stream in list(self._streams.values()):
            self._forget(stream)
        cuda = self._parts.library.torch.cuda
        self._parts.retire(self._generator)
        self._parts.release()
        del self._generator, self._cache, self._factory, self._parts
        gc.collect()
        cuda.empty_cache()

    @override
    def _receive(self, task: Task, token_ids: Sequence[int]) -> Stream:
        return self._factory.make_stream(task, token_ids)

    @override
    def _drop(self, item: Stream, failure: Failed) -> None:
        super()._drop(item, failure)
        self._forget(item)

    @property
    def _is_busy(self) -> bool:
        return any(stream.is_decoding for stream in self._running.values())

    @override
    def _run_step(self) -> None:
        if not self._running:
            return
        running = list(self._running.values())
        is_busy = self._is_busy
        self._parts.set_chunk(self._generator, is_busy=is_busy)
        self._generator.decodes = self._share.decodes(self._running.values())
        try:
            self._factory.echo_prompts(self._running.values(), is_busy=is_busy)
            self._generator.iterate()
        except Exception as error:  # noqa: BLE001 - the library's exceptions have no common class
            self._note_computed(running)
            self._recover(error)
            return
        self._note_computed(running)
        self._steps += 1
        broken = [s for s in self._running.values() if s.job is not None and s.job.is_broken]
        if self._faults.note_step(is_broken=bool(broken)):
            raise EnginePoisoned("The model's output was no number, several steps in a row.")
        for stream in broken:
            self._fail(stream, Reason.ENGINE_FAILED, NO_NUMBER)
        now = time.monotonic()
        for stream in [stream for stream in self._running.values() if not stream.is_echoing]:
            self._read(stream, now)

    def _note_computed(self, running: Sequence[Stream]) -> None:
        self._meter.note([(stream.task, *stream.computed()) for stream in running])

    def _read(self, stream: Stream, now: float) -> None:
        """Takes over what a stream got, and decides how it goes on."""
        job = stream.job
        assert job is not None
        self._events += stream.progress()
        had, is_first = len(stream.output), stream.first_token_at is None
        stream.read_job(now)
        if len(stream.output) > had:
            stream.is_suspect = False
            if is_first:
                self._cache.note(stream)
        if job.constraint is not None and job.constraint.error is not None:
            self._fail(stream, Reason.BAD_CONSTRAINT, str(job.constraint.error))
            return
        if self._tell(stream, now):
            return
        if job.is_finished:  # its reservation is used up, the stream is not
            self._stop_job(stream)
            self._returning.insert(0, stream)
        elif not stream.transcript.has_credit:
            self._stop_job(stream)

    def _tell(self, stream: Stream, now: float) -> bool:
        """Sends what the transcript has; True if that was the end."""
        transcript = stream.transcript
        if transcript.reason is not None and not stream.is_announced:
            # Nothing was to be generated at all.
            texts = transcript.resumed_texts
            self._events.append(Started(stream.task.task_id, len(stream.prompt), 0, texts))
        delta = transcript.take()
        if delta is not None:
            self._events.append(delta)
        if transcript.reason is None:
            return False
        self._queue.note_end(now - (stream.started_at or now))
        self._cache.note_reading(stream)
        self._stop_job(stream)
        self._events.append(stream.ended(now))
        self._forget(stream)
        return True

    def _recover(self, error: Exception) -> None:
        """Makes a new generator; every stream but the culprit goes on in it.

        Raises:
            EnginePoisoned: no new generator would help.
        """
        now = time.monotonic()
        fault = classify(error)
        if fault is Fault.DEVICE or self._faults.note_rebuild(now):
            raise EnginePoisoned(one_line(error)) from error
        survivors = list(self._running.values())
        culprit = next((stream for stream in survivors if stream.is_suspect), None)
        if fault is Fault.OUT_OF_MEMORY:
            self._parts.library.torch.cuda.empty_cache()
            culprit = survivors[-1] if self._faults.note_shortage(now) else None
        for stream in survivors:
            stream.is_suspect = True
        for stream in [*survivors, *self._suspension]:
            stream.drop_job()
        self._running.clear()
        self._generator = self._parts.remake_generator(self._generator)
        self._cache.begin_anew(self._generator)
        if culprit is not None:
            survivors.remove(culprit)
            is_memory = fault is Fault.OUT_OF_MEMORY
            reason = Reason.OUT_OF_MEMORY if is_memory else Reason.ENGINE_FAILED
            self._fail(culprit, reason, one_line(error))
        self._returning = survivors + self._returning

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

from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.events import Failed, Started, failed
from services.neuron.engine_api.model import EnginePoisoned, ModelInfo, ModelStats
from services.neuron.engine_api.task import Constraint, Task
from services.neuron.engines.common.task_queue import TaskQueue
from services.neuron.engines.common.token_model import GeneratingModel
from services.neuron.engines.exllamav2.batch.fault_history import FaultHistory
from services.neuron.engines.exllamav2.batch.jobs import SampledJob
from services.neuron.engines.exllamav2.batch.stream_factory import StreamFactory
from services.neuron.engines.exllamav2.batch.streams import Stream
from services.neuron.engines.exllamav2.library.faults import Fault, classify, one_line
from services.neuron.engines.exllamav2.model.generators import Parts
from services.neuron.engines.exllamav2.text.tokeniser import JsonTokeniser


class Loop(GeneratingModel[Stream]):
    """Generates with ExLlamaV2's dynamic generator."""

    def __init__(
        self,
        *,
        parts: Parts,
        tokeniser: JsonTokeniser,
        streams: StreamFactory,
        info: ModelInfo,
        queue: TaskQueue[Stream],
    ) -> None:
        super().__init__(tokeniser, info, queue)
        self._parts = parts
        self._factory = streams
        self._generator = parts.make_generator()
        self._faults = FaultHistory()
        self._streams: dict[int, Stream] = {}
        self._running: dict[int, Stream] = {}
        self._returning: list[Stream] = []
        self._steps = 0

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
        if stream.job is None and not waits:
            self._returning.append(stream)

    @property
    @override
    def has_work(self) -> bool:
        if self._events or self._running or self._returning:
            return True
        has_place = self._active < self._info.max_sequences
        return has_place and self._queue.peek(self._admitted()) is not None

    @override
    def stats(self) -> ModelStats:
        """How busy it is. Streams that wait for credit hold no cache and count as active."""
        used = self._parts.used_tokens(self._generator)
        return ModelStats(self._active, len(self._queue), used, self._steps)

    @override
    def close(self) -> None:
        for stream in list(self._streams.values()):
            self._forget(stream)
        cuda = self._parts.library.torch.cuda
        self._parts.retire(self._generator)
        self._parts.release()
        del self._generator, self._factory, self._parts
        gc.collect()
        cuda.empty_cache()

    @property
    def _active(self) -> int:
        return len(self._streams) - len(self._queue)

    def _admitted(self) -> list[Task]:
        """The tasks that have a place, whether they run now or wait for credit."""
        return [stream.task for stream in self._streams.values() if stream.started_at is not None]

    @override
    def _receive(self, task: Task, token_ids: Sequence[int]) -> Stream:
        return self._factory.make_stream(task, token_ids)

    @override
    def _drop(self, item: Stream, failure: Failed) -> None:
        super()._drop(item, failure)
        self._forget(item)

    @override
    def _admit(self, now: float) -> None:
        """Starts who may start: streams that return first, then the queue."""
        while self._returning and self._start(self._returning[0], now):
            del self._returning[0]
        while not self._returning:
            admitted = self._admitted()
            waiting = self._queue.peek(admitted)
            if waiting is None or not self._start(waiting.item, now):
                break
            self._queue.pop(admitted)

    def _start(self, stream: Stream, now: float) -> bool:
        """Gives a stream a job in the generator; False where it has to wait on.

        1. A stream that has ended, or has no credit, leaves the line without a job.
        2. A new stream needs a place: fewer than `max_sequences` are active.
        3. While a stream that ran at an exception is under suspicion, none starts beside it.
        4. A step reads few prompt tokens while others talk (`Parts.prefill_budget`), of one prompt
           at least: every prompt that is being read runs a chunk in every step.
        5. The cache has the unused pages that the job takes.
        """
        stream.push_surplus()
        is_parked = stream.is_announced and not stream.transcript.has_credit
        if self._tell(stream, now) or is_parked:
            return True  # it leaves the line either way
        running = self._running.values()
        # A stream that waits for credit gives its pages back but keeps its place.
        has_place = stream.is_announced or self._active < self._info.max_sequences
        if not has_place or any(other.is_suspect for other in running):
            return False
        try:
            job = self._factory.next_job(stream, self._generator)
            if not self._has_prefill_room(job):
                return False
            # Those that were queued for the same step take theirs only in it.
            claimed = sum(other.pages_wanted for other in self._generator.pending_jobs)
            if job.pages_wanted + claimed > len(self._generator.unreferenced_pages):
                return False
            self._generator.enqueue(job)
        except Exception as error:  # noqa: BLE001 - likewise; it concerns this stream alone
            self._fail(stream, Reason.ENGINE_FAILED, one_line(error))
            return True
        stream.job, stream.spare = job, None
        stream.started_at = stream.started_at or now
        self._running[stream.task.task_id] = stream
        return True

    def _has_prefill_room(self, job: SampledJob) -> bool:
        is_busy = self._is_busy
        chunk = self._parts.chunk_tokens(is_busy=is_busy)
        reading = [s.job for s in self._running.values() if s.job is not None and s.is_prefilling]
        begun = sum(min(other.unread_tokens, chunk) for other in reading)
        wanted = begun + min(job.unread_tokens, chunk)
        return not begun or wanted <= self._parts.prefill_budget(is_busy=is_busy)

    @property
    def _is_busy(self) -> bool:
        return any(stream.is_decoding for stream in self._running.values())

    @override
    def _run_step(self) -> None:
        if not self._running:
            return
        is_busy = self._is_busy
        self._parts.set_chunk(self._generator, is_busy=is_busy)
        try:
            self._factory.echo_prompts(self._running.values(), is_busy=is_busy)
            self._generator.iterate()
        except Exception as error:  # noqa: BLE001 - the library's exceptions have no common class
            self._recover(error)
            return
        self._steps += 1
        broken = [s for s in self._running.values() if s.job is not None and s.job.is_broken]
        if self._faults.note_step(is_broken=bool(broken)):
            raise EnginePoisoned("The model's output was no number, several steps in a row.")
        for stream in broken:
            self._fail(stream, Reason.ENGINE_FAILED, "The model's output is not a number.")
        now = time.monotonic()
        for stream in [stream for stream in self._running.values() if not stream.is_echoing]:
            self._read(stream, now)

    def _read(self, stream: Stream, now: float) -> None:
        """Takes over what a stream got, and decides how it goes on."""
        job = stream.job
        assert job is not None
        self._events += stream.progress()
        had = len(stream.output)
        stream.read_job(now)
        if len(stream.output) > had:
            stream.is_suspect = False
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
            stream.drop_job()
            stream.is_suspect = True
        self._running.clear()
        self._generator = self._parts.remake_generator(self._generator)
        if culprit is not None:
            survivors.remove(culprit)
            is_memory = fault is Fault.OUT_OF_MEMORY
            reason = Reason.OUT_OF_MEMORY if is_memory else Reason.ENGINE_FAILED
            self._fail(culprit, reason, one_line(error))
        self._returning = survivors + self._returning

    def _fail(self, stream: Stream, reason: Reason, message: str) -> None:
        delta = stream.transcript.take()
        if delta is not None:
            self._events.append(delta)
        self._forget(stream)
        self._events.append(failed(stream.task.task_id, FleetError(reason, message)))

    def _stop_job(self, stream: Stream) -> None:
        if stream.job is not None:
            self._generator.cancel(stream.job)
        stream.drop_job()
        self._running.pop(stream.task.task_id, None)

    def _forget(self, stream: Stream) -> None:
        self._stop_job(stream)
        if stream in self._returning:
            self._returning.remove(stream)
        self._streams.pop(stream.task.task_id, None)

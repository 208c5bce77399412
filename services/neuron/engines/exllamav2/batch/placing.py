"""Which streams of a loaded generator have a place in its batch, and pages in its cache.

The library's own queue is never used: a task enters it only when its pages are free and the step's
share of prompt tokens has room, and who is next is decided by our queue. Where others wait, a
stream may have to give its place, or its pages.
"""

from __future__ import annotations

import abc

from typing_extensions import override

from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.events import failed
from services.neuron.engine_api.model import ModelInfo
from services.neuron.engines.common.admission import Waiting
from services.neuron.engines.common.task_queue import TaskQueue
from services.neuron.engines.common.token_model import GeneratingModel
from services.neuron.engines.exllamav2.batch.cache_tracker import CacheTracker
from services.neuron.engines.exllamav2.batch.jobs import SampledJob
from services.neuron.engines.exllamav2.batch.prefill_share import PrefillShare
from services.neuron.engines.exllamav2.batch.stream_factory import StreamFactory
from services.neuron.engines.exllamav2.batch.streams import Stream
from services.neuron.engines.exllamav2.batch.suspension import Suspension
from services.neuron.engines.exllamav2.library.faults import one_line
from services.neuron.engines.exllamav2.model.generators import GeneratorParts
from services.neuron.engines.exllamav2.paging.hibernation import PageHibernation
from services.neuron.engines.exllamav2.text.tokeniser import JsonTokeniser


class PlacingModel(GeneratingModel[Stream]):
    """The streams of one model, from the queue to their end; who steps them is `Loop`."""

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
        super().__init__(tokeniser, info, queue)
        self._parts = parts
        self._factory = streams
        self._generator = parts.make_generator()
        self._streams: dict[int, Stream] = {}
        self._running: dict[int, Stream] = {}
        self._returning: list[Stream] = []
        self._lacks_pages = False
        self._share = PrefillShare(parts)
        self._cache = CacheTracker(
            self._generator,
            hibernation,
            vocabulary_size=info.vocabulary_size,
            control_ids=frozenset(info.control_tokens.values()),
            seconds_per_request=lambda: queue.seconds_per_request,
        )
        self._suspension = Suspension(queue, places=info.max_sequences)

    @abc.abstractmethod
    def _tell(self, stream: Stream, now: float) -> bool:
        """Sends what the transcript has; True if that was the end."""

    def _placed(self) -> list[Stream]:
        """The streams that have a place, whether they run now or wait for credit."""
        yielded = set(map(id, self._suspension))
        return [
            stream
            for stream in self._streams.values()
            if stream.started_at is not None and id(stream) not in yielded
        ]

    @override
    def _admit(self, now: float) -> None:
        """Starts who may start: streams that return, then those that gave their place, then others.

        Where no place is free, or no pages, a stream may have to make room.
        """
        self._share.begin()
        while self._returning and self._start(self._returning[0], now):
            del self._returning[0]
        while not self._returning and self._admit_one(now):
            pass

    def _admit_one(self, now: float) -> bool:
        """Gives a place to one of those who wait; False where nobody gets one now."""
        placed = self._placed()
        if self._suspension.may_return(placed):
            return self._resume(now)
        if len(placed) == self._info.max_sequences:
            found = self._suspension.found(placed, now)
            if found is None:
                return False
            waiting, victim = found
            self._suspend(victim)
        else:
            first = self._queue.peek(stream.task for stream in placed)
            if first is None:
                return False
            waiting = first
        if self._start(waiting.item, now):
            self._queue.take(waiting)
            self._suspension.note_admission()
            return True
        return self._lacks_pages and self._made_room(waiting, now)

    def _made_room(self, waiting: Waiting[Stream], now: float) -> bool:
        """A stream has given its place, and so its pages, to what waits."""
        victim = self._suspension.victim(self._placed(), waiting, now)
        if victim is not None:
            self._suspend(victim)
        return victim is not None

    def _suspend(self, victim: Stream) -> None:
        self._suspension.suspend(victim, self._generator)
        self._running.pop(victim.task.task_id, None)

    def _resume(self, now: float) -> bool:
        """Lets the first of those go on that gave their place; False where it has to wait on."""
        stream = self._suspension.first
        assert stream is not None
        if stream.job is not None:  # it has its pages
            self._generator.active_jobs.append(stream.job)
            self._running[stream.task.task_id] = stream
        elif not self._start(stream, now):
            return False
        if self._suspension.first is stream:  # else that was its end
            self._suspension.give_back()
        return True

    def _start(self, stream: Stream, now: float) -> bool:
        """Gives a stream a job in the generator; False where it has to wait on.

        1. A stream that has ended, or has no credit, leaves the line without a job.
        2. A new stream needs a place: fewer than `max_sequences` are active.
        3. While a stream that ran at an exception is under suspicion, none starts beside it.
        4. The cache has the unused pages that the job takes, if need be those of suspended streams.
        5. The step has room for its prompt (`PrefillShare`), less what is brought back of it.
        """
        stream.push_surplus()
        is_parked = stream.is_announced and not stream.transcript.has_credit
        if self._tell(stream, now) or is_parked:
            return True  # it leaves the line either way
        running = self._running.values()
        # A stream that waits for credit gives its pages back but keeps its place.
        has_place = stream.is_announced or len(self._placed()) < self._info.max_sequences
        if not has_place or any(other.is_suspect for other in running):
            return False
        try:
            job = self._factory.next_job(stream, self._generator)
            self._lacks_pages = not self._has_pages(job)
            if self._lacks_pages:
                return False
            self._cache.wake(stream, job)
            if not self._share.has_room(job, running):
                return False
            self._generator.enqueue(job)
        except Exception as error:  # noqa: BLE001 - likewise; it concerns this stream alone
            self._fail(stream, Reason.ENGINE_FAILED, one_line(error))
            return True
        stream.job, stream.spare = job, None
        stream.started_at = stream.started_at or now
        self._running[stream.task.task_id] = stream
        return True

    def _has_pages(self, job: SampledJob) -> bool:
        """The pages that a job wants are there; else suspended streams give up theirs."""
        # Those that were queued for the same step take theirs only in it.
        claimed = sum(other.pages_wanted for other in self._generator.pending_jobs)
        while job.pages_wanted + claimed > len(self._generator.unreferenced_pages):
            stream = self._suspension.last_with_pages
            if stream is None:
                return False
            self._stop_job(stream)
        return True

    def _fail(self, stream: Stream, reason: Reason, message: str) -> None:
        delta = stream.transcript.take()
        if delta is not None:
            self._events.append(delta)
        self._forget(stream)
        self._events.append(failed(stream.task.task_id, FleetError(reason, message)))

    def _stop_job(self, stream: Stream) -> None:
        if stream.job is not None:
            self._cache.note(stream)
            if self._suspension.find(stream.task.task_id) is None:
                self._generator.cancel(stream.job)
            else:
                stream.job.deallocate_pages()
        stream.drop_job()
        self._running.pop(stream.task.task_id, None)

    def _forget(self, stream: Stream) -> None:
        self._stop_job(stream)
        self._suspension.forget(stream)
        if stream in self._returning:
            self._returning.remove(stream)
        self._streams.pop(stream.task.task_id, None)

"""What the pages of a model's cache hold: told to gateways, saved at its end, brought back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from services.neuron.engine_api.cache import CacheChanges, Comparison
from services.neuron.engines.common.kv_store.cache_reporter import CacheReporter
from services.neuron.engines.common.marks import marks_of
from services.neuron.engines.exllamav2.batch.jobs import SampledJob
from services.neuron.engines.exllamav2.batch.streams import Stream
from services.neuron.engines.exllamav2.paging.hibernation import PageHibernation
from services.neuron.engines.exllamav2.paging.sequences import PagedSequence, Sequences


class CacheTracker:
    """Keeps track of the sequences in a model's page cache: reports, saves and restores them.

    Args:
        generator: whose pages they are.
        hibernation: saves them, and brings them back.
        vocabulary_size: ids from here on are pictures.
        control_ids: ids of control tokens, by which marks are found.
        seconds_per_request: measured, all places together; None: not yet.
    """

    def __init__(
        self,
        generator: Any,
        hibernation: PageHibernation,
        *,
        vocabulary_size: int,
        control_ids: Collection[int],
        seconds_per_request: Callable[[], float | None],
    ) -> None:
        self._generator = generator
        self._hibernation = hibernation
        self._control_ids = control_ids
        self._sequences = Sequences(vocabulary_size)
        self._reporter = CacheReporter(
            self._current,
            reusable=_reusable,
            hibernation=hibernation,
            seconds_per_request=seconds_per_request,
        )

    def begin_anew(self, generator: Any) -> None:
        """Starts over with another generator, whose pages are empty."""
        self._generator = generator
        self._sequences.clear()

    def wake(self, stream: Stream, job: SampledJob) -> None:
        """Restores what is saved of a stream's prompt, once the pages for its job are free."""
        tokens = [*stream.prompt, *stream.output]
        marks = self._hibernation.wake(tokens, job, self._generator)
        if marks:
            self._sequences.note(job.scope, tokens[: marks[-1][0]], marks)

    def note(self, stream: Stream) -> None:
        """Records what a stream's job has put into the cache so far; trial runs are left out."""
        job = stream.job
        if job is None or job.is_broken or not job.has_started or _is_trial(stream):
            return
        names = marks_of(
            stream.task.marks,
            stream.prompt,
            prompt_tokens=len(stream.prompt),
            control_ids=self._control_ids,
        )
        self._sequences.note(job.scope, job.kept_tokens, names)

    def note_reading(self, stream: Stream) -> None:
        """Records how fast a stream's prompt was read; trial runs, which compile, are left out."""
        if not _is_trial(stream):
            self._hibernation.note_reading(*stream.reading)

    def news(self, now: float) -> CacheChanges | None:
        """Changes since the last call, `now` in monotonic seconds; None where there are none."""
        return self._reporter.news(now)

    def compare(
        self, token_ids: Sequence[int], principal: str, *, pieces: Sequence[bytes]
    ) -> Comparison:
        """How much of a prompt the cache holds for this principal, and where the two differ."""
        return self._reporter.compare(token_ids, principal, pieces=pieces)

    def save(self, streams: Iterable[Stream]) -> tuple[int, int]:
        """Saves what is held, of streams that run too; see `Hibernation.save`."""
        for stream in streams:
            self.note(stream)
        return self._hibernation.save_sequences(self._sequences, self._generator)

    def _current(self) -> list[PagedSequence]:
        return self._sequences.current(self._generator)


def _reusable(sequence: PagedSequence, length: int) -> int:
    return min(sequence.held, length)


def _is_trial(stream: Stream) -> bool:
    """The daemon's ids begin at zero."""
    return stream.task.task_id < 0

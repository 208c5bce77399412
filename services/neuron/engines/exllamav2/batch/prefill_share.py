"""How many prompt tokens a batch reads in a step, and whether the step generates too."""

from __future__ import annotations

from collections.abc import Collection

from services.neuron.engines.exllamav2.batch.jobs import SampledJob
from services.neuron.engines.exllamav2.batch.streams import Stream
from services.neuron.engines.exllamav2.model.generators import MOST_READS, GeneratorParts


class PrefillShare:
    """Divides each step between reading prompts and generating.

    1. While streams decode, a step reads few prompt tokens, else many
       (`GeneratorParts.prefill_budget`), of one prompt at least: every prompt that is being read
       runs a chunk in every step.
    2. While no stream decodes and more is to be read than in this step, up to `MOST_READS` steps in
       a row only read, so that all begin together: a pass over half of them costs as much as one
       over all.
    """

    def __init__(self, parts: GeneratorParts) -> None:
        self._parts = parts
        self._reads = 0
        self._is_crowded = False

    def begin(self) -> None:
        """Starts a step, which has room for every prompt so far."""
        self._is_crowded = False

    def has_room(self, job: SampledJob, streams: Collection[Stream]) -> bool:
        """True if one more prompt may be started in this step.

        Args:
            job: which would be started.
            streams: all that run.
        """
        is_busy = _is_busy(streams)
        chunk = self._parts.chunk_tokens(is_busy=is_busy)
        begun = sum(min(other.unread_tokens, chunk) for other in _reading(streams))
        wanted = begun + min(job.unread_tokens, chunk)
        has_room = not begun or wanted <= self._parts.prefill_budget(is_busy=is_busy)
        self._is_crowded |= not has_room
        return has_room

    def decodes(self, streams: Collection[Stream]) -> bool:
        """True if the coming step generates tokens. Asked once a step, behind every `has_room`."""
        self._reads = self._reads + 1 if self._reads < MOST_READS and self._waits(streams) else 0
        return not self._reads

    def _waits(self, streams: Collection[Stream]) -> bool:
        """Nobody talks, and this step will not read everything."""
        if _is_busy(streams):
            return False
        chunk = self._parts.chunk_tokens(is_busy=False)
        return self._is_crowded or any(job.unread_tokens > chunk for job in _reading(streams))


def _is_busy(streams: Collection[Stream]) -> bool:
    return any(stream.is_decoding for stream in streams)


def _reading(streams: Collection[Stream]) -> list[SampledJob]:
    return [s.job for s in streams if s.job is not None and s.is_prefilling]

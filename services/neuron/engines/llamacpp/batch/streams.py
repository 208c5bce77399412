"""One running task: its slot of the cache, what is still to be read, its output, its events."""

from __future__ import annotations

import time
from collections.abc import Sequence

from services.neuron.engine_api.events import (
    NO_NUMBER,
    Delta,
    Ended,
    EndReason,
    Failed,
    Prefilled,
    Started,
    TokenLogprob,
)
from services.neuron.engines.common.constraint import BadConstraintError
from services.neuron.engines.common.logprobs import LogprobReader, Row
from services.neuron.engines.common.transcript import Transcript
from services.neuron.engines.llamacpp.batch.intake import Prepared
from services.neuron.engines.llamacpp.batch.sampling import Sampler, is_sound
from services.neuron.engines.llamacpp.batch.slots import CacheSlot


class Stream:
    """One task while it runs: its slot, sampler and output.

    Attributes:
        task: what was asked for.
        is_echoed: the prompt's log probabilities are wanted.
        slot: the cache that it fills; `slot.tokens` is what was read.
        transcript: the output so far.
        unread: what is still to be read: the rest of the prompt, later the last token sampled.
        is_prefilling: the prompt is not read yet, or is read again.
        was_chunked: the prompt took more than one step.
        is_done: its last event was made.
        checkpoint_at: after how many tokens of its prompt the cache's state is to be kept, rising.
        started_at: when it was admitted, monotonic seconds.
    """

    def __init__(
        self,
        prepared: Prepared,
        *,
        slot: CacheSlot,
        transcript: Transcript,
        sampler: Sampler,
        queued_seconds: float,
        checkpoint_at: Sequence[int] = (),
    ) -> None:
        """Starts behind what the slot holds of the prompt already."""
        self.task = prepared.task
        self.is_echoed = prepared.is_echoed
        self.slot = slot
        self.transcript = transcript
        self.unread = prepared.tokens[len(slot.tokens) :]
        self.is_prefilling = True
        self.was_chunked = False
        self.is_done = False
        self.checkpoint_at = list(checkpoint_at)
        self._prepared = prepared
        self._cached = len(slot.tokens)
        self._sampler = sampler
        self._queued_seconds = queued_seconds
        self.started_at = time.monotonic()
        self._sampled_at: float | None = None
        self._prompt_logprobs: list[TokenLogprob] = []

    @property
    def cached_tokens(self) -> int:
        """How many tokens its first slot held when it began."""
        return self._cached

    @property
    def held_tokens(self) -> int:
        """How many tokens its cache holds."""
        return len(self.slot.tokens)

    @property
    def may_pause(self) -> bool:
        """True if it can be suspended: not at its end, and able to go on later."""
        return not self.is_done and self.transcript.reason is None

    @property
    def is_answering(self) -> bool:
        """True once a token was sampled: prompt progress is no longer reported."""
        return self._sampled_at is not None

    @property
    def readable(self) -> int:
        """How many tokens may be read now, none beyond the next checkpoint.

        The last one only with credit, for it brings another.
        """
        is_held = self.transcript.reason is None and not self.transcript.has_credit
        most = len(self.unread) - is_held
        if self.checkpoint_at:
            return min(most, self.checkpoint_at[0] - len(self.slot.tokens))
        return most

    @property
    def started(self) -> Started:
        """The event that it was admitted."""
        prompt = self._prepared.prompt_tokens
        texts = self.transcript.resumed_texts
        return Started(self.task.task_id, prompt, min(self._cached, prompt), texts)

    @property
    def prefilled(self) -> Prefilled:
        """The event that tells how far the prompt was read."""
        return Prefilled(self.task.task_id, len(self.slot.tokens), len(self._prepared.tokens))

    @property
    def reading(self) -> tuple[int, float]:
        """Tokens that were read before the first was sampled, and the seconds that it took."""
        until = self._sampled_at or time.monotonic()
        return len(self._prepared.tokens) - self._cached, until - self.started_at

    def read(self, count: int) -> None:
        """Notes that so many more tokens are in the cache now."""
        self.slot.tokens += self.unread[:count]
        del self.unread[:count]
        self.was_chunked = self.was_chunked or bool(self.unread)

    def read_again(self, lost: list[int]) -> None:
        """Notes that these last tokens are no longer in its cache."""
        self.unread = [*lost, *self.unread]
        self.is_prefilling = True
        if not self.slot.tokens:
            self._prompt_logprobs = []

    def note_prompt_row(self, row: Row, offset: int, pieces: list[bytes]) -> None:
        """Keeps the log probability of the prompt token behind the unread one at `offset`."""
        following = len(self.slot.tokens) + offset + 1
        if following < self._prepared.prompt_tokens:
            reader = self._reader(row, self.task.top_logprobs or 0, pieces)
            self._prompt_logprobs.append(reader.of(self._prepared.tokens[following]))

    def prompt_logprobs(self, pieces: list[bytes]) -> Delta:
        """The prompt's log probabilities as a delta without text or tokens.

        One entry per prompt token; the first, which has none, is told with 0.
        """
        first = self._prepared.tokens[0]
        entries = (TokenLogprob(first, pieces[first], 0.0), *self._prompt_logprobs)
        self._prompt_logprobs = []
        return Delta(self.task.task_id, "", (), entries)

    def sample(self, context: int, place: int, row: Row, pieces: list[bytes]) -> Failed | None:
        """Chooses the next token and writes it into the transcript.

        Args:
            context: the `llama_context *`.
            place: of the row in its batch.
            row: the row itself; it may be changed.
            pieces: every token's bytes.

        Returns: why the task cannot go on, or None.
        """
        self._sampled_at = self._sampled_at or time.monotonic()
        if not is_sound(row):
            return Failed(self.task.task_id, "ENGINE_FAILED", NO_NUMBER)
        top = self.task.top_logprobs
        reader = None if top is None else self._reader(row, top, pieces)
        self._mask(row)
        token_id = self._sampler.sample(context, place, row)
        self.transcript.push(token_id, None if reader is None else reader.of(token_id))
        self.unread.append(token_id)
        return self._follow_constraint(token_id)

    def ended(self) -> Ended | None:
        """The last event, or None while the output goes on."""
        if self.transcript.reason is None:
            return None
        now = time.monotonic()
        sampled_at = self._sampled_at or now
        return Ended(
            task_id=self.task.task_id,
            reason=self.transcript.reason,
            stop_string=self.transcript.stop_string,
            completion_tokens=self.transcript.token_count,
            queued_seconds=self._queued_seconds,
            prefill_seconds=sampled_at - self.started_at,
            decode_seconds=now - sampled_at,
        )

    def close(self) -> None:
        """Frees the sampler."""
        self._sampler.close()

    def _reader(self, row: Row, top: int, pieces: list[bytes]) -> LogprobReader:
        return LogprobReader(row, top=top, piece=pieces.__getitem__)

    def _mask(self, row: Row) -> None:
        if self._prepared.constraint is not None:
            # min_tokens yields: a finished shape has nothing left but its end.
            self._prepared.constraint.apply(row)
            return
        for token_id in self.transcript.banned_end_ids:
            row[token_id] = float("-inf")

    def _follow_constraint(self, token_id: int) -> Failed | None:
        constraint = self._prepared.constraint
        if constraint is None:
            return None
        try:
            # the end too: where nothing fits any more it may be taken, and is no end of the shape
            constraint.accept(token_id)
        except BadConstraintError as error:
            return Failed(self.task.task_id, "BAD_CONSTRAINT", str(error), "constraint")
        if self.transcript.reason is None and constraint.is_finished:
            self.transcript.end(EndReason.END_OF_TURN)
        return None

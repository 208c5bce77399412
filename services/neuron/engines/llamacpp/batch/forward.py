"""One step of the continuous batch: a pass through the model, then a token for each sequence."""

from __future__ import annotations

from collections.abc import Collection

from services.neuron.engine_api.events import Event
from services.neuron.engines.llamacpp.batch.batch import TokenBatch
from services.neuron.engines.llamacpp.batch.context import Context
from services.neuron.engines.llamacpp.batch.prefill import shares
from services.neuron.engines.llamacpp.batch.sequence import Sequence


class Forward:
    """Steps sequences: one token of each that decodes, a bounded chunk of those that prefill.

    A long prompt therefore delays the other streams, and a cancel, by one chunk at a time.
    """

    def __init__(
        self, context: Context, *, sequences: int, prefill_tokens: int, pieces: list[bytes]
    ) -> None:
        """Makes the batch.

        Args:
            context: whose batch size is `sequences + prefill_tokens`.
            sequences: most that run together.
            prefill_tokens: most prompt tokens of a step.
            pieces: every token's bytes.
        """
        self._context = context
        self._prefill_tokens = prefill_tokens
        self._pieces = pieces
        self._batch = TokenBatch(sequences + prefill_tokens)
        self._served: frozenset[int] = frozenset()
        self.steps = 0

    def run(self, running: Collection[Sequence]) -> list[Event]:
        """Does one step; sequences that have ended are marked `is_done`.

        Raises:
            EnginePoisoned: llama.cpp failed.
        """
        counts = self._counts(running)
        if not counts:
            return []
        rows = [(sequence, count, self._add(sequence, count)) for sequence, count in counts]
        self._served = frozenset(sequence.task.task_id for sequence, _, _ in rows)
        is_complete = self._context.decode(self._batch)
        self._served = frozenset()
        self._batch.clear()
        if not is_complete:
            self._take_back(counts)
            return []
        self.steps += 1
        events: list[Event] = []
        for sequence, count, place in rows:
            self._advance(sequence, count, place, events)
        return events

    def interrupt(self, task_ids: Collection[int]) -> None:
        """Cuts the running step short if it serves none but these; for another thread."""
        served = self._served
        # If the step ends meanwhile, the next one is cut short: it is done again, and nothing lost.
        if served and served.issubset(task_ids):
            self._context.interrupt()

    def _take_back(self, counts: list[tuple[Sequence, int]]) -> None:
        for sequence, _ in counts:
            self._context.cut(sequence.slot.index, len(sequence.slot.tokens))

    def _counts(self, running: Collection[Sequence]) -> list[tuple[Sequence, int]]:
        prompts = {s.slot.index: s.readable for s in running if s.is_prefilling}
        granted = shares(prompts, budget=self._prefill_tokens)
        # llama.cpp takes neighbouring sequences through the model together only in this order.
        ordered = sorted(running, key=lambda sequence: sequence.slot.index)
        counts = [
            (s, granted.get(s.slot.index, 0) if s.is_prefilling else s.readable) for s in ordered
        ]
        return [(sequence, count) for sequence, count in counts if count > 0]

    def _add(self, sequence: Sequence, count: int) -> int:
        position = len(sequence.slot.tokens)
        index = sequence.slot.index
        if not sequence.is_prefilling:
            return self._batch.add_one(sequence.unread[0], sequence=index, position=position)
        is_last = count == len(sequence.unread)
        want = True if sequence.is_echoed else (None if is_last else False)
        return self._batch.add(
            sequence.unread[:count], sequence=index, position=position, want=want
        )

    def _advance(self, sequence: Sequence, count: int, place: int, events: list[Event]) -> None:
        if sequence.is_echoed and sequence.is_prefilling:
            for row in range(count):
                at = place - count + 1 + row
                sequence.note_prompt_row(self._context.logits(at), row, self._pieces)
        sequence.read(count)
        if sequence.unread:
            events.append(sequence.prefilled)
            return
        if sequence.is_prefilling:
            self._end_prefill(sequence, events)
        self._sample(sequence, place, events)

    def _end_prefill(self, sequence: Sequence, events: list[Event]) -> None:
        sequence.is_prefilling = False
        if sequence.was_chunked:
            events.append(sequence.prefilled)
        if sequence.is_echoed:
            events.append(sequence.prompt_logprobs(self._pieces))

    def _sample(self, sequence: Sequence, place: int, events: list[Event]) -> None:
        if sequence.transcript.reason is None:
            row = self._context.logits(place)
            failure = sequence.sample(self._context.handle, place, row, self._pieces)
            if failure is not None:
                events.append(failure)
                sequence.is_done = True
                return
        delta = sequence.transcript.take()
        if delta is not None:
            events.append(delta)
        ended = sequence.ended()
        if ended is not None:
            events.append(ended)
            sequence.is_done = True

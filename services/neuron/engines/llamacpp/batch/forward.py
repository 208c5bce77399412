"""One step of the continuous batch: a pass through the model, then a token for each stream."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from services.backplane.errors import Reason
from services.neuron.engine_api.events import Event, Failed, crashed
from services.neuron.engine_api.model import EnginePoisoned
from services.neuron.engine_api.task import WorkClass
from services.neuron.engines.common.step_meter import StepMeter
from services.neuron.engines.llamacpp.batch.batch import TokenBatch
from services.neuron.engines.llamacpp.batch.checkpoints import Checkpoints
from services.neuron.engines.llamacpp.batch.context import Context, PassRefusedError
from services.neuron.engines.llamacpp.batch.narrowing import Narrowing
from services.neuron.engines.llamacpp.batch.prefill import shares
from services.neuron.engines.llamacpp.batch.streams import Stream

_MOST_UNSHARED: Final = 8
"""Steps in a row in which batch prompts get nothing."""
_WHAT_TO_SET: Final = (
    " Lower max_sequences or max_context_tokens of the model, or gpu_layers of [neuron.llamacpp]."
)


class Forward:
    """Steps streams: one token of each that decodes, a bounded chunk of those that prefill.

    A long prompt therefore delays the other streams, and a cancel, by one chunk at a time.
    """

    def __init__(
        self,
        context: Context,
        *,
        checkpoints: Checkpoints,
        sequences: int,
        prefill_tokens: int,
        pieces: list[bytes],
        meter: StepMeter,
        where: str = "",
    ) -> None:
        """Makes the batch.

        Args:
            context: whose batch size is `sequences + prefill_tokens`.
            checkpoints: keeps states of the cache where streams want them kept.
            sequences: most that run together.
            prefill_tokens: most prompt tokens of a step.
            pieces: every token's bytes.
            meter: told what each step computes.
            where: the model and its devices in words, for the errors of streams that are refused.
        """
        self._meter = meter
        self._where = where
        self._narrowing = Narrowing()
        self._context = context
        self._checkpoints = checkpoints
        self._prefill_tokens = prefill_tokens
        self._pieces = pieces
        self._batch = TokenBatch(sequences + prefill_tokens)
        self._served: frozenset[int] = frozenset()
        self._is_patient = False  # the running step serves batch prompts alone
        self._was_interrupted = False
        self._unshared_steps = 0
        self.steps = 0

    def run(self, running: Collection[Stream]) -> list[Event]:
        """Does one step; streams that have ended are marked `is_done`.

        Where llama.cpp refuses the pass of all, each stream goes alone: see `Narrowing`.

        Raises:
            EnginePoisoned: llama.cpp failed.
        """
        counts = self._counts(running)
        if not counts:
            return []
        if not self._narrowing.is_on:
            try:
                return self._pass(counts)
            except PassRefusedError:
                self._take_back(counts)
        self._narrowing.begin()
        events = [event for stream, count in counts for event in self._run_alone(stream, count)]
        self._narrowing.end_step()
        return events

    def _run_alone(self, stream: Stream, count: int) -> list[Event]:
        """A pass of one stream, of ever fewer tokens until it is taken; else it fails."""
        tried = self._narrowing.bounded(min(count, stream.readable))
        while True:
            try:
                return self._pass([(stream, tried)])
            except PassRefusedError as refusal:
                self._take_back([(stream, tried)])
                tried = min(self._narrowing.note_refusal(tried), stream.readable)
                if self._narrowing.is_hopeless:
                    raise EnginePoisoned(refusal.message) from refusal
                if not tried:
                    stream.is_done = True
                    return [self._refused(stream, refusal)]

    def _refused(self, stream: Stream, refusal: PassRefusedError) -> Failed:
        message = f"{refusal.message}, {self._where}."
        if refusal.reason is Reason.OUT_OF_MEMORY:
            message += _WHAT_TO_SET
        return Failed(stream.task.task_id, refusal.reason.value, message)

    def _pass(self, counts: list[tuple[Stream, int]]) -> list[Event]:
        """One pass through the model.

        Raises:
            PassRefusedError: what was read of it is to be taken back.
        """
        rows = [(stream, count, self._add(stream, count)) for stream, count in counts]
        # also where it is cut short: the devices have worked
        self._meter.note(
            [
                (stream.task, count, 0) if stream.is_prefilling else (stream.task, 0, count)
                for stream, count in counts
            ]
        )
        if not self._decode(counts):
            self._take_back(counts)
            return []
        self.steps += 1
        self._narrowing.note_pass()
        events: list[Event] = []
        for stream, count, place in rows:
            try:
                self._advance(stream, count, place, events)
            except (EnginePoisoned, KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # noqa: BLE001 - it ends this stream alone
                events.append(crashed(stream.task.task_id, error))
                stream.is_done = True
        return events

    def _decode(self, counts: list[tuple[Stream, int]]) -> bool:
        """Runs the batch, which is empty then; False: it was interrupted."""
        self._served = frozenset(stream.task.task_id for stream, _ in counts)
        self._is_patient = not self._was_interrupted and all(
            stream.task.work_class is WorkClass.BATCH for stream, _ in counts
        )
        try:
            is_complete = self._context.decode(self._batch)
        finally:
            self._served, self._is_patient = frozenset(), False
            self._batch.clear()
        self._was_interrupted = not is_complete
        return is_complete

    def interrupt(self, task_ids: Collection[int]) -> None:
        """Cuts the running step short if it serves none but these; for another thread."""
        served = self._served
        # If the step ends meanwhile, the next one is cut short: it is done again, and nothing lost.
        if served and served.issubset(task_ids):
            self._context.interrupt()

    def hurry(self) -> None:
        """Cuts the running step short if it serves batch work alone; for another thread."""
        if self._is_patient:
            self._context.interrupt()

    def _take_back(self, counts: list[tuple[Stream, int]]) -> None:
        """Forgets what was read of a pass; a cache that cannot is read again from a checkpoint."""
        for stream, _ in counts:
            slot, length = stream.slot, len(stream.slot.tokens)
            if self._context.cut(slot.index, length) and self._context.can_cut(slot.index, length):
                continue
            tokens = list(slot.tokens)
            kept = 0 if stream.is_echoed else self._checkpoints.reusable(slot, length)
            self._checkpoints.cut(slot, kept)
            stream.read_again(tokens[len(slot.tokens) :])

    def _counts(self, running: Collection[Stream]) -> list[tuple[Stream, int]]:
        granted = self._prefill_shares(running)
        # llama.cpp takes neighbouring sequences through the model together only in this order.
        ordered = sorted(running, key=lambda stream: stream.slot.index)
        counts = [
            (s, granted.get(s.slot.index, 0) if s.is_prefilling else s.readable) for s in ordered
        ]
        return [(stream, count) for stream, count in counts if count > 0]

    def _prefill_shares(self, running: Collection[Stream]) -> dict[int, int]:
        """Tokens of prompts to read, by slot: batch prompts get an eighth and what is left.

        Not their eighth where the others' prompts would be read to their end without it, so that
        these take no step more; at least in one of `_MOST_UNSHARED` steps, however.
        """
        reading = [stream for stream in running if stream.is_prefilling]
        batch = {s.slot.index: s.readable for s in reading if s.task.work_class is WorkClass.BATCH}
        others = {s.slot.index: s.readable for s in reading if s.slot.index not in batch}
        reserved = self._prefill_tokens // 8 if batch else 0
        if sum(others.values()) <= self._prefill_tokens and self._unshared_steps < _MOST_UNSHARED:
            reserved = 0
        granted = shares(others, budget=self._prefill_tokens - reserved)
        left = self._prefill_tokens - sum(granted.values())
        self._unshared_steps = self._unshared_steps + 1 if batch and not left else 0
        return granted | shares(batch, budget=left)

    def _add(self, stream: Stream, count: int) -> int:
        position = len(stream.slot.tokens)
        index = stream.slot.index
        if not stream.is_prefilling:
            return self._batch.add_one(stream.unread[0], sequence=index, position=position)
        is_last = count == len(stream.unread)
        want = True if stream.is_echoed else (None if is_last else False)
        return self._batch.add(stream.unread[:count], sequence=index, position=position, want=want)

    def _advance(self, stream: Stream, count: int, place: int, events: list[Event]) -> None:
        if stream.is_echoed and stream.is_prefilling and not stream.is_answering:
            for row in range(count):
                at = place - count + 1 + row
                stream.note_prompt_row(self._context.logits(at), row, self._pieces)
        stream.read(count)
        if stream.checkpoint_at and stream.checkpoint_at[0] == len(stream.slot.tokens):
            del stream.checkpoint_at[0]
            self._checkpoints.take(stream.slot)
        if stream.unread:
            if not stream.is_answering:
                events.append(stream.prefilled)
            return
        if stream.is_prefilling:
            self._end_prefill(stream, events)
        self._sample(stream, place, events)

    def _end_prefill(self, stream: Stream, events: list[Event]) -> None:
        stream.is_prefilling = False
        if stream.is_answering:  # what its cache had lost is there again
            return
        if stream.was_chunked:
            events.append(stream.prefilled)
        if stream.is_echoed:
            events.append(stream.prompt_logprobs(self._pieces))

    def _sample(self, stream: Stream, place: int, events: list[Event]) -> None:
        if stream.transcript.reason is None:
            row = self._context.logits(place)
            failure = stream.sample(self._context.handle, place, row, self._pieces)
            if failure is not None:
                events.append(failure)
                stream.is_done = True
                return
        delta = stream.transcript.take()
        if delta is not None:
            events.append(delta)
        ended = stream.ended()
        if ended is not None:
            events.append(ended)
            stream.is_done = True

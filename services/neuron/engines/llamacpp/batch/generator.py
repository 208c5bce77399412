"""A loaded generator: who runs, where, and for how long; the steps themselves are `Forward`'s."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from collections.abc import Sequence as Tokens

from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.events import Event, Queued, failed
from services.neuron.engine_api.model import ModelInfo, ModelStats
from services.neuron.engine_api.task import Prompt, Task
from services.neuron.engines.common.admission import AdmissionQueue, Pace, QueueFullError, Waiting
from services.neuron.engines.common.constraint import ConstraintCompiler
from services.neuron.engines.common.transcript import Transcript
from services.neuron.engines.llamacpp.batch.context import Context
from services.neuron.engines.llamacpp.batch.forward import Forward
from services.neuron.engines.llamacpp.batch.intake import Prepared, prepare
from services.neuron.engines.llamacpp.batch.sampling import Sampler
from services.neuron.engines.llamacpp.batch.sequence import Sequence
from services.neuron.engines.llamacpp.batch.slots import Slot, place
from services.neuron.engines.llamacpp.library.library import Library
from services.neuron.engines.llamacpp.model.vocabulary import Vocabulary


class Generator:
    """Implements `LoadedModel` over one llama.cpp context."""

    def __init__(
        self,
        *,
        library: Library,
        context: Context,
        vocabulary: Vocabulary,
        info: ModelInfo,
        compiler: ConstraintCompiler,
        queue: AdmissionQueue[Prepared],
        prefill_tokens: int,
    ) -> None:
        self._library = library
        self._context = context
        self._vocabulary = vocabulary
        self._info = info
        self._compiler = compiler
        self._queue = queue
        self._pace = Pace(info.max_sequences)
        self._slots = [Slot(index) for index in range(info.max_sequences)]
        self._forward = Forward(
            context,
            sequences=info.max_sequences,
            prefill_tokens=prefill_tokens,
            pieces=vocabulary.pieces,
        )
        self._running: dict[int, Sequence] = {}
        self._events: list[Event] = []
        self._turns = 0
        self._is_queue_changed = False

    @property
    def info(self) -> ModelInfo:
        """What it says about itself."""
        return self._info

    def tokenize(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt; safe beside a step."""
        return self._vocabulary.tokenize(prompt)

    def min_token_counts(self, prompt: Prompt) -> Iterator[int]:
        """Numbers of tokens that a prompt has at least; see `LoadedModel.min_token_counts`."""
        return self._vocabulary.min_token_counts(prompt)

    def submit(self, task: Task, token_ids: Tokens[int]) -> None:
        """Queues a task, or notes why it cannot run."""
        try:
            prepared = prepare(
                task,
                token_ids,
                max_context_tokens=self._info.max_context_tokens,
                vocabulary_size=self._info.vocabulary_size,
                compiler=self._compiler,
            )
            self._queue.push(
                prepared,
                key=task.task_id,
                principal=task.principal,
                is_batch=task.is_batch,
                now=time.monotonic(),
            )
        except FleetError as error:
            self._events.append(failed(task.task_id, error))
        except QueueFullError:
            self._events.append(failed(task.task_id, self._queue_full()))
        else:
            self._is_queue_changed = True

    def cancel(self, task_id: int) -> None:
        """Forgets a task at once."""
        if self._queue.remove(task_id):
            self._is_queue_changed = True
            return
        sequence = self._running.get(task_id)
        if sequence is not None:
            self._release(sequence)

    def interrupt(self, task_ids: Collection[int]) -> None:
        """Cuts the running step short if it serves none but these; for another thread."""
        self._forward.interrupt(task_ids)

    def credit(self, task_id: int, tokens: int) -> None:
        """Lets a running or queued task send more tokens."""
        sequence = self._running.get(task_id)
        if sequence is not None:
            sequence.transcript.add_credit(tokens)
            return
        prepared = self._queue.get(task_id)
        if prepared is not None:
            prepared.extra_credit += tokens

    @property
    def has_work(self) -> bool:
        """True if a step would do something now."""
        if self._events or any(sequence.readable for sequence in self._running.values()):
            return True
        return len(self._queue) > 0 and len(self._running) < len(self._slots)

    def step(self) -> list[Event]:
        """Expires, admits, reads one batch and samples from it."""
        now = time.monotonic()
        for waiting in self._queue.expire(now):
            self._events.append(failed(waiting.key, self._queue_timed_out(now - waiting.since)))
            self._is_queue_changed = True
        self._admit(now)
        self._events += self._forward.run(self._running.values())
        for sequence in [s for s in self._running.values() if s.is_done]:
            self._pace.note(time.monotonic() - sequence.started_at)
            self._release(sequence)
        events, self._events = self._events, []
        return events

    def embed(self, inputs: Tokens[Tokens[int]]) -> list[list[float]]:
        """Refused: it was not loaded to embed."""
        raise FleetError(Reason.WRONG_MODALITY, "This model generates; it makes no embeddings.")

    def stats(self) -> ModelStats:
        """How busy it is."""
        return ModelStats(
            active=len(self._running),
            queued=len(self._queue),
            cache_tokens_used=sum(len(slot.tokens) for slot in self._slots if slot.is_busy),
            steps=self._forward.steps,
        )

    def close(self) -> None:
        """Frees the memory."""
        for sequence in list(self._running.values()):
            self._release(sequence)
        self._context.close()

    def _admit(self, now: float) -> None:
        while len(self._queue) and len(self._running) < len(self._slots):
            waiting = self._queue.pop()
            assert waiting is not None
            self._start(waiting, now)
            self._is_queue_changed = True
        if self._is_queue_changed:
            self._is_queue_changed = False
            self._events += [
                Queued(key, position, self._pace.seconds_until(position))
                for position, key in enumerate(self._queue.order())
            ]

    def _start(self, waiting: Waiting[Prepared], now: float) -> None:
        prepared = waiting.item
        task = prepared.task
        transcript = Transcript(
            task,
            room_tokens=self._info.max_context_tokens - prepared.prompt_tokens,
            end_token_ids=self._vocabulary.end_ids,
            piece=self._vocabulary.piece,
        )
        transcript.add_credit(prepared.extra_credit)
        sequence = Sequence(
            prepared,
            slot=self._take_slot(prepared),
            transcript=transcript,
            sampler=self._new_sampler(prepared),
            queued_seconds=now - waiting.since,
        )
        self._running[task.task_id] = sequence
        self._events.append(sequence.started)

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

    def _take_slot(self, prepared: Prepared) -> Slot:
        # Log probabilities of the prompt come only from reading it.
        can_share = self._context.can_share_prefixes and not prepared.is_echoed
        placement = place(self._slots, prepared.tokens, can_share=can_share)
        assert placement is not None
        slot, source, keep = placement.slot, placement.source, placement.cached_tokens
        if source is not None:
            self._context.copy(source.index, slot.index)
            slot.tokens = source.tokens[:keep]
        if not self._context.cut(slot.index, keep):
            self._context.cut(slot.index, 0)
            keep = 0
        del slot.tokens[keep:]
        self._turns += 1
        slot.is_busy, slot.used_at = True, self._turns
        return slot

    def _release(self, sequence: Sequence) -> None:
        """Ends a run; what its slot holds stays, for prompts that begin alike."""
        del self._running[sequence.task.task_id]
        sequence.slot.is_busy = False
        sequence.close()

    def _queue_full(self) -> FleetError:
        waiting = len(self._queue)
        return FleetError(
            Reason.QUEUE_FULL,
            f"{waiting} requests wait for this model already.",
            retry_after_seconds=self._pace.seconds_until(waiting),
            facts={"queued": str(waiting)},
        )

    def _queue_timed_out(self, seconds: float) -> FleetError:
        return FleetError(
            Reason.QUEUE_TIMEOUT,
            f"No place became free within {seconds:.1f} seconds.",
            retry_after_seconds=self._pace.seconds_until(len(self._queue)),
        )

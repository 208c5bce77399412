"""One task from its submission to its last event."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from services.neuron.engine_api.events import Delta, Ended, EndReason, Event, Prefilled, Started
from services.neuron.engine_api.task import Task
from services.neuron.engines.common.transcript import Transcript
from services.neuron.engines.exllamav2.batch.jobs import Sampled, SampledJob
from services.neuron.engines.exllamav2.batch.prompt_logprobs import PromptLogprobs


@dataclasses.dataclass(slots=True, eq=False)
class Stream:
    """A task, its output, and the job that makes it now.

    The job may change: it is given up when the stream has no credit, when its reservation of pages
    is used up, and when another job's exception has ended the generator. The output stays.

    Attributes:
        task: what was asked for.
        prompt: token ids, those of pictures included.
        transcript: text, stop rules and credit.
        output: token ids so far, resumed ones included.
        seed: drawn once, so that a new job goes on where the old one ended.
        embeddings: the library's picture embeddings.
        job: None while nothing runs.
        spare: the next job, made and waiting for pages.
        surplus: tokens sampled beyond the credit.
        is_suspect: ran when the generator raised, and has not run well since.
        is_announced: Started was sent.
        prefilled: tokens read at the last report.
        cached_tokens: how many were in the cache when it began.
        echo: the prompt's own log probabilities, until they are told; None where nobody asked.
        echoed: of how many tokens they were read when that was last counted.
    """

    task: Task
    prompt: Sequence[int]
    transcript: Transcript
    output: list[int]
    seed: int
    embeddings: Sequence[Any] = ()
    job: SampledJob | None = None
    spare: SampledJob | None = None
    surplus: deque[Sampled] = dataclasses.field(default_factory=deque[Sampled])
    is_suspect: bool = False
    is_announced: bool = False
    prefilled: int = 0
    cached_tokens: int = 0
    echo: PromptLogprobs | None = None
    echoed: int = 0
    submitted_at: float = dataclasses.field(default_factory=time.monotonic)
    started_at: float | None = None
    first_token_at: float | None = None
    accepted_draft_tokens: int = 0

    @property
    def remaining(self) -> int:
        """Tokens that may still be sampled."""
        return self.transcript.limit - len(self.output)

    @property
    def is_echoing(self) -> bool:
        """True while log probabilities of its prompt are still to be read; they come first."""
        return self.echo is not None and not self.echo.is_read

    @property
    def is_prefilling(self) -> bool:
        """True while its prompt is being read."""
        return self.job is not None and not self.job.is_prefill_done()

    @property
    def is_decoding(self) -> bool:
        """True while each step brings it a token, so that a long step keeps its reader waiting."""
        return self.job is not None and self.job.has_sampled and not self.is_echoing

    @property
    def held_tokens(self) -> int:
        """How many tokens its cache holds; what it held where its pages were given back."""
        if self.job is None or not self.job.has_started:
            return len(self.prompt) + len(self.output) if self.is_announced else 0
        return self.job.position

    @property
    def may_pause(self) -> bool:
        """True if it can be suspended: not at its end, and able to go on later."""
        is_there = self.job is None or self.job.has_started
        has_begun = self.is_announced and is_there and not self.is_echoing
        return has_begun and self.transcript.reason is None

    @property
    def reading(self) -> tuple[int, float]:
        """Tokens that were read before the first was sampled, and the seconds that it took."""
        first = self.first_token_at or time.monotonic()
        read = len(self.prompt) + len(self.task.resume_token_ids) - self.cached_tokens
        return read, first - (self.started_at or first)

    def read_job(self, now: float) -> None:
        """Takes over what the job has sampled; pushes as much of it as the credit allows."""
        if self.job is not None:
            sampled = self.job.take()
            if sampled and self.first_token_at is None:
                self.first_token_at = now
            self.output.extend(token.token_id for token in sampled)
            self.surplus.extend(sampled)
        self.push_surplus()

    def push_surplus(self) -> None:
        """Pushes held tokens into the transcript, as far as the credit goes."""
        transcript = self.transcript
        while self.surplus and transcript.reason is None and transcript.has_credit:
            token_id, logprob = self.surplus.popleft()
            transcript.push(token_id, logprob)
        filter_ = None if self.job is None else self.job.constraint
        if filter_ is not None and filter_.is_finished and not self.surplus:
            transcript.end(EndReason.END_OF_TURN)

    def progress(self) -> Iterator[Event]:
        """`Started`, once, and `Prefilled` for a prompt that takes more than one step."""
        job, task_id = self.job, self.task.task_id
        if job is None or not job.has_started:
            return
        done, total = job.prefilled_tokens, len(self.prompt)
        if not self.is_announced:
            self.is_announced = True
            self.cached_tokens = job.reused_tokens
            reused = min(self.cached_tokens, total)
            yield Started(task_id, total, reused, self.transcript.resumed_texts)
            if self.echo is not None:
                yield Delta(task_id, "", (), self.echo.entries)
                self.echo = None
        if not self.output and done != self.prefilled and (done < total or self.prefilled):
            self.prefilled = done
            yield Prefilled(task_id, done, total)

    def computed(self) -> tuple[int, int]:
        """Tokens computed since the last call: of its prompt, and new ones."""
        if self.echo is not None:
            before, self.echoed = self.echoed, len(self.echo.entries)
            return self.echoed - before, 0
        return (0, 0) if self.job is None else self.job.computed()

    def drop_job(self) -> None:
        """Forgets the job; its drafts are remembered."""
        self.spare = None
        if self.job is not None:
            self.accepted_draft_tokens += int(self.job.accepted_draft_tokens)
        self.job = None

    def ended(self, now: float) -> Ended:
        """The closing event."""
        reason = self.transcript.reason
        assert reason is not None
        started = self.started_at or now
        first = self.first_token_at or now
        return Ended(
            task_id=self.task.task_id,
            reason=reason,
            stop_string=self.transcript.stop_string,
            completion_tokens=self.transcript.token_count,
            queued_seconds=max(0.0, started - self.submitted_at),
            prefill_seconds=max(0.0, first - started),
            decode_seconds=max(0.0, now - first),
            accepted_draft_tokens=self.accepted_draft_tokens,
        )

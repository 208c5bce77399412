"""Makes streams of tasks, and jobs of streams."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import Any, Final

from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.task import Constraint, Task
from services.neuron.engines.common.constraint import (
    BadConstraintError,
    ConstraintCompiler,
    OutputConstraint,
)
from services.neuron.engines.common.transcript import Transcript
from services.neuron.engines.exllamav2.batch.filters import ConstraintFilter
from services.neuron.engines.exllamav2.batch.intake import Limits, check
from services.neuron.engines.exllamav2.batch.jobs import Ban, LogprobWish, SampledJob
from services.neuron.engines.exllamav2.batch.logit_rules import LogitRules
from services.neuron.engines.exllamav2.batch.prompt_logprobs import PromptLogprobs
from services.neuron.engines.exllamav2.batch.sampling import PositionalRandom, settings
from services.neuron.engines.exllamav2.batch.streams import Stream
from services.neuron.engines.exllamav2.model.generators import Parts
from services.neuron.engines.exllamav2.model.vision import Vision
from services.neuron.engines.exllamav2.text.tokens import Tokens

RESERVED_TOKENS: Final = 2048
"""Output that pages are reserved for at a time. A longer one goes on in another job, which finds
its pages again; reserving for a whole context would leave room for one stream."""

_ECHO_ROWS: Final = 256
"""Tokens of a prompt whose log probabilities are read in a step, at a millisecond each."""
_BUSY_ECHO_ROWS: Final = 32
"""The same while others stream."""


class Reception:
    """Checks what comes in, against the limits of one model.

    Attributes:
        tokens: the tokeniser.
    """

    def __init__(
        self,
        *,
        parts: Parts,
        tokens: Tokens,
        compiler: ConstraintCompiler,
        limits: Limits,
        end_ids: Sequence[int],
    ) -> None:
        self.tokens = tokens
        self._parts = parts
        self._compiler = compiler
        self._limits = limits
        self._end_ids = end_ids
        has_tower = parts.tower is not None
        self._vision = Vision(parts, tokens.vocabulary.control) if has_tower else None

    def receive(self, task: Task, prompt: Sequence[int]) -> Stream:
        """A stream for a task.

        Raises:
            FleetError: it can never run.
        """
        embeddings: list[Any] = []
        if task.images and self._vision is not None:
            if self._parts.draft_model is not None:
                told = "Images and a draft model do not go together in ExLlamaV2."
                raise FleetError(Reason.UNSUPPORTED_FIELD, told, field="images")
            prompt, embeddings = self._vision.place(prompt, task.images)
        check(task, prompt, self._limits)
        if task.constraint is not None:
            self._constraint(task.constraint, task.resume_token_ids)
        transcript = Transcript(
            task,
            room_tokens=self._limits.longest - len(prompt),
            end_token_ids=self._end_ids,
            piece=self.tokens.vocabulary.piece,
        )
        seed = task.sampling.seed
        return Stream(
            task=task,
            prompt=prompt,
            transcript=transcript,
            output=list(task.resume_token_ids),
            seed=random.getrandbits(63) if seed is None else seed,
            embeddings=embeddings,
            echo=self._echo(task, prompt),
        )

    def next_job(self, stream: Stream, generator: Any) -> SampledJob:
        """The job to queue in a generator. It is kept while it waits: a prompt may be long.

        Raises:
            FleetError: BAD_CONSTRAINT, the output so far does not fit its constraint.
        """
        job: SampledJob | None = stream.spare
        if job is None or not job.is_prepared(generator):
            stream.spare = job = self.make_job(stream)
            job.prepare(generator)
        return job

    def make_job(self, stream: Stream) -> SampledJob:
        """A job that goes on where the stream stands.

        Raises:
            FleetError: BAD_CONSTRAINT, the output so far does not fit its constraint.
        """
        task, output = stream.task, stream.output
        logprobs = None
        if task.top_logprobs is not None:
            logprobs = LogprobWish(task.top_logprobs, self.tokens.vocabulary.piece)
        return SampledJob(
            [*stream.prompt, *output],
            max_new_tokens=min(stream.remaining, RESERVED_TOKENS) + self._parts.shape.draft_tokens,
            settings=settings(task.sampling),
            rules=LogitRules(task.sampling, output, vocabulary=self._limits.vocabulary),
            chance=PositionalRandom(stream.seed, position=len(output)),
            ban=self._ban(task, len(output)),
            logprobs=logprobs,
            constraint=self._filter(task.constraint, output),
            embeddings=stream.embeddings,
        )

    def echo_prompts(self, streams: Collection[Stream], *, is_busy: bool) -> None:
        """Reads on in the prompts whose own log probabilities are wanted.

        Args:
            streams: all that run.
            is_busy: some of them are talking, and wait meanwhile.
        """
        for stream in streams:
            if stream.echo is not None:
                stream.echo.advance(_BUSY_ECHO_ROWS if is_busy else _ECHO_ROWS)

    def _echo(self, task: Task, prompt: Sequence[int]) -> PromptLogprobs | None:
        if not task.echo_prompt_logprobs or task.resume_token_ids:  # told before
            return None
        piece = self.tokens.vocabulary.piece
        return PromptLogprobs(self._parts, prompt, top=task.top_logprobs or 0, piece=piece)

    def _ban(self, task: Task, done: int) -> Ban:
        if task.constraint is not None:
            # min_tokens yields: a finished shape has nothing left but its end.
            return Ban((), 0)
        ends = set(task.stop.token_ids)
        if not task.stop.ignore_eos:
            ends.update(self._end_ids)
        return Ban(tuple(ends), max(0, task.stop.min_tokens - done))

    def _filter(
        self, constraint: Constraint | None, output: Sequence[int]
    ) -> ConstraintFilter | None:
        if constraint is None:
            return None
        at_place = self._constraint(constraint, output)
        return ConstraintFilter(self._parts.model, self._parts.tokenizer, at_place)

    def _constraint(self, constraint: Constraint, output: Sequence[int]) -> OutputConstraint:
        try:
            made = self._compiler.compile(constraint)
            for token_id in output:
                made.accept(token_id)
        except BadConstraintError as error:
            raise FleetError(Reason.BAD_CONSTRAINT, str(error), field="constraint") from error
        return made

"""Makes streams of tasks, and jobs of streams."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import Any, Final

from services.backplane.errors import FleetError, Reason
from services.neuron.engine_api.model import ModelInfo
from services.neuron.engine_api.task import Constraint, Task
from services.neuron.engines.common.constraint import ConstraintCompiler
from services.neuron.engines.common.task_checks import (
    check_task,
    context_tokens,
    start_constraint,
)
from services.neuron.engines.common.transcript import Transcript
from services.neuron.engines.exllamav2.batch.filters import ConstraintFilter
from services.neuron.engines.exllamav2.batch.intake import BatchLimits, check_limits
from services.neuron.engines.exllamav2.batch.jobs import Ban, LogprobWish, SampledJob
from services.neuron.engines.exllamav2.batch.logit_rules import LogitRules
from services.neuron.engines.exllamav2.batch.prompt_logprobs import PromptLogprobs
from services.neuron.engines.exllamav2.batch.sampling import PositionalRandom, is_greedy, settings
from services.neuron.engines.exllamav2.batch.streams import Stream
from services.neuron.engines.exllamav2.model.generators import GeneratorParts
from services.neuron.engines.exllamav2.model.vision import Vision
from services.neuron.engines.exllamav2.text.vocabulary import Vocabulary

RESERVED_TOKENS: Final = 2048
"""Output that pages are reserved for at a time. A longer one goes on in another job, which finds
its pages again; reserving for a whole context would leave room for one stream."""

_ECHO_ROWS: Final = 256
"""Tokens of a prompt whose log probabilities are read in a step, at a millisecond each."""
_BUSY_ECHO_ROWS: Final = 32
"""The same while others stream."""


class StreamFactory:
    """Makes streams of the tasks of one model, and jobs of its streams."""

    def __init__(
        self,
        *,
        parts: GeneratorParts,
        vocabulary: Vocabulary,
        compiler: ConstraintCompiler,
        info: ModelInfo,
        limits: BatchLimits,
    ) -> None:
        self._parts = parts
        self._vocabulary = vocabulary
        self._compiler = compiler
        self._info = info
        self._limits = limits
        has_tower = parts.tower is not None
        self._vision = Vision(parts, vocabulary.control) if has_tower else None

    def prepare(self, constraint: Constraint) -> None:
        """Compiles a constraint for the tasks that have it. Called by any thread.

        Raises:
            FleetError: BAD_CONSTRAINT, it cannot be enforced.
        """
        start_constraint(self._compiler, constraint, ())

    def make_stream(self, task: Task, prompt: Sequence[int]) -> Stream:
        """A stream for a task, with its pictures' embeddings; nothing runs yet.

        Raises:
            FleetError: it can never run; see `check_task`, `check_limits`, `start_constraint` and
                `Vision.place`.
            EnginePoisoned: the device failed while a picture was read.
        """
        embeddings: list[Any] = []
        if task.images and self._vision is not None:
            if self._parts.draft_model is not None:
                told = "Images and a draft model do not go together in ExLlamaV2."
                raise FleetError(Reason.UNSUPPORTED_FIELD, told, field="images")
            prompt, embeddings = self._vision.place(prompt, task.images)
        check_task(task, prompt, self._info)
        check_limits(task, prompt, self._limits)
        if task.constraint is not None:
            start_constraint(self._compiler, task.constraint, task.resume_token_ids)
        transcript = Transcript(
            task,
            room_tokens=context_tokens(task, self._limits.longest) - len(prompt),
            end_token_ids=self._info.eos_token_ids,
            piece=self._vocabulary.piece,
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
            logprobs = LogprobWish(task.top_logprobs, self._vocabulary.piece)
        return SampledJob(
            [*stream.prompt, *output],
            scope=task.principal,
            max_new_tokens=min(stream.remaining, RESERVED_TOKENS) + self._parts.shape.draft_tokens,
            settings=settings(task.sampling),
            is_greedy=is_greedy(task.sampling),
            rules=LogitRules(task.sampling, output, vocabulary=self._info.vocabulary_size),
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
        piece = self._vocabulary.piece
        return PromptLogprobs(self._parts, prompt, top=task.top_logprobs or 0, piece=piece)

    def _ban(self, task: Task, done: int) -> Ban:
        if task.constraint is not None:
            # min_tokens yields: a finished shape has nothing left but its end.
            return Ban((), 0)
        ends = set(task.stop.token_ids)
        if not task.stop.ignore_eos:
            ends.update(self._info.eos_token_ids)
        return Ban(tuple(ends), max(0, task.stop.min_tokens - done))

    def _filter(
        self, constraint: Constraint | None, output: Sequence[int]
    ) -> ConstraintFilter | None:
        if constraint is None:
            return None
        at_place = start_constraint(self._compiler, constraint, output)
        return ConstraintFilter(self._parts.model, self._parts.tokenizer, at_place)

"""A loaded embedding model: one vector per text, pooled by the model's own rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from services.backplane.errors import FleetError, Reason, context_too_long
from services.neuron.engine_api.model import ModelInfo, ModelStats
from services.neuron.engine_api.task import Prompt
from services.neuron.engines.common.embedding_only import RefusesTasks
from services.neuron.engines.llamacpp.batch.batch import TokenBatch
from services.neuron.engines.llamacpp.batch.context import Context
from services.neuron.engines.llamacpp.model.vocabulary import Vocabulary


class Embedder(RefusesTasks):
    """Implements `LoadedModel` for embeddings; it refuses generation."""

    def __init__(self, *, context: Context, vocabulary: Vocabulary, info: ModelInfo) -> None:
        super().__init__()
        self._context = context
        self._vocabulary = vocabulary
        self._info = info
        self._batch = TokenBatch(info.max_context_tokens)
        self._steps = 0

    @property
    def info(self) -> ModelInfo:
        """What it says about itself."""
        return self._info

    def tokenize(self, prompt: Prompt) -> list[int]:
        """Token ids of a text, framed as the model wants it."""
        return self._vocabulary.tokenize(prompt)

    def min_token_counts(self, prompt: Prompt) -> Iterator[int]:
        """Numbers of tokens that a prompt has at least; see `LoadedModel.min_token_counts`."""
        return self._vocabulary.min_token_counts(prompt)

    def embed(self, inputs: Sequence[Sequence[int]]) -> list[list[float]]:
        """One l2-normalised vector per input.

        Raises:
            FleetError: CONTEXT_TOO_LONG, an input is longer than the model reads; BAD_REQUEST, an
                input is empty.
            EnginePoisoned: llama.cpp failed.
        """
        limit = self._info.max_context_tokens
        for position, tokens in enumerate(inputs):
            if not tokens:
                raise FleetError(
                    Reason.BAD_REQUEST, "The text is empty.", field=f"input.{position}"
                )
            if len(tokens) > limit:
                raise context_too_long(prompt_tokens=len(tokens), max_tokens=limit)
        return [vector for group in self._groups(inputs) for vector in self._embed_group(group)]

    def stats(self) -> ModelStats:
        """How busy it is: never between two calls."""
        return ModelStats(steps=self._steps)

    def close(self) -> None:
        """Frees the memory."""
        self._context.close()

    def _groups(self, inputs: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
        """As many texts together as one pass takes."""
        group: list[Sequence[int]] = []
        total = 0
        for tokens in inputs:
            is_full = len(group) == self._info.max_sequences
            if group and (is_full or total + len(tokens) > self._batch.capacity):
                yield group
                group, total = [], 0
            group.append(tokens)
            total += len(tokens)
        if group:
            yield group

    def _embed_group(self, group: list[Sequence[int]]) -> list[list[float]]:
        self._context.clear()
        self._batch.clear()
        for sequence, tokens in enumerate(group):
            self._batch.add(tokens, sequence=sequence, position=0, want=True)
        self._context.decode(self._batch)
        self._steps += 1
        width = self._info.embedding_size
        return [_normalised(self._context.pooled(i, width)) for i in range(len(group))]


def _normalised(vector: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> list[float]:
    length = float(np.linalg.norm(vector))
    values: list[float] = (vector / (length or 1.0)).tolist()
    return values

"""A loaded embedding model: one vector per text, pooled by the model's own rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from typing_extensions import override

from services.backplane.errors import FleetError
from services.neuron.engine_api.model import ModelInfo
from services.neuron.engines.common.token_model import EmbeddingModel
from services.neuron.engines.llamacpp.batch.batch import TokenBatch
from services.neuron.engines.llamacpp.batch.context import Context, PassRefusedError
from services.neuron.engines.llamacpp.model.tokeniser import GgufTokeniser


class Embedder(EmbeddingModel):
    """Embeds with llama.cpp, as many texts a pass as its batch takes."""

    def __init__(self, *, context: Context, tokeniser: GgufTokeniser, info: ModelInfo) -> None:
        super().__init__(tokeniser, info)
        self._context = context
        self._batch = TokenBatch(info.max_context_tokens)

    @override
    def close(self) -> None:
        self._context.close()

    @override
    def _vectors(self, inputs: Sequence[Sequence[int]]) -> list[list[float]]:
        return [vector for group in self._groups(inputs) for vector in self._embed_group(group)]

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
        """Their vectors; where llama.cpp refuses them together, each is tried alone.

        Raises:
            FleetError: one was refused alone.
        """
        try:
            return self._pass(group)
        except PassRefusedError as refusal:
            if len(group) == 1:
                told = f"{refusal.message}; a shorter text needs less."
                raise FleetError(refusal.reason, told) from refusal
            return [vector for tokens in group for vector in self._embed_group([tokens])]

    def _pass(self, group: list[Sequence[int]]) -> list[list[float]]:
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

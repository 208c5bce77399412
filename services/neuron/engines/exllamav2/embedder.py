"""A generator's weights used to embed: the last layer's states, pooled and normalised.

Pooling is what the model's own `1_Pooling/config.json` (sentence-transformers) says; without one
the last token's state, as decoder models for retrieval are trained.
"""

from __future__ import annotations

import gc
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from services.backplane.errors import FleetError, Reason, context_too_long
from services.neuron.engine_api.model import LoadFailed, ModelInfo, ModelStats
from services.neuron.engine_api.task import Prompt
from services.neuron.engines.common.embedding_only import RefusesTasks
from services.neuron.engines.exllamav2.batch.prompt_logprobs import last_states
from services.neuron.engines.exllamav2.files.legacy_config import BAD
from services.neuron.engines.exllamav2.model.generators import Parts
from services.neuron.engines.exllamav2.text.tokens import Tokens

LAST = "lasttoken"
MEAN = "mean_tokens"
FIRST = "cls_token"


def pooling(folder: pathlib.Path) -> str:
    """How a model folder wants its states pooled.

    Raises:
        LoadFailed: in a way that is not known here.
    """
    file = folder / "1_Pooling" / "config.json"
    if not file.is_file():
        return LAST
    try:
        settings: dict[str, Any] = json.loads(file.read_bytes())
    except ValueError as error:
        raise LoadFailed(BAD, f"{file}: {error}") from error
    for mode in (LAST, MEAN, FIRST):
        if settings.get(f"pooling_mode_{mode}"):
            return mode
    raise LoadFailed(BAD, f"{file}: no known pooling mode.")


class Embedder(RefusesTasks):
    """Implements `LoadedModel` for embeddings; it refuses generation."""

    def __init__(self, *, parts: Parts, tokens: Tokens, info: ModelInfo, mode: str) -> None:
        super().__init__()
        self._parts = parts
        self._tokens = tokens
        self._info = info
        self._mode = mode
        self._steps = 0

    @property
    def info(self) -> ModelInfo:
        """What it says about itself."""
        return self._info

    def tokenize(self, prompt: Prompt) -> list[int]:
        """Token ids of a text."""
        return self._tokens.tokenize(prompt)

    def min_token_counts(self, prompt: Prompt) -> Iterator[int]:
        """Numbers of tokens that a prompt has at least; see `LoadedModel.min_token_counts`."""
        return self._tokens.min_token_counts(prompt)

    def embed(self, inputs: Sequence[Sequence[int]]) -> list[list[float]]:
        """One l2-normalised vector per input.

        Raises:
            FleetError: CONTEXT_TOO_LONG, an input is longer than the model reads; BAD_REQUEST, an
                input is empty.
        """
        limit = self._info.max_context_tokens
        for position, tokens in enumerate(inputs):
            if not tokens:
                raise FleetError(
                    Reason.BAD_REQUEST, "The text is empty.", field=f"input.{position}"
                )
            if len(tokens) > limit:
                raise context_too_long(prompt_tokens=len(tokens), max_tokens=limit)
        return [self._embed(tokens) for tokens in inputs]

    def stats(self) -> ModelStats:
        """How busy it is: never between two calls."""
        return ModelStats(steps=self._steps)

    def close(self) -> None:
        """Frees the memory."""
        torch = self._parts.library.torch
        self._parts.release()
        del self._parts
        gc.collect()
        torch.cuda.empty_cache()

    def _embed(self, token_ids: Sequence[int]) -> list[float]:
        self._steps += 1
        states = last_states(self._parts, token_ids).float()
        pooled = {MEAN: states.mean(0), FIRST: states[0], LAST: states[-1]}
        vector = pooled[self._mode]
        values: list[float] = (vector / vector.norm().clamp(min=1e-12)).cpu().tolist()
        return values

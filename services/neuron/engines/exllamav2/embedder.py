"""A generator's weights used to embed: the last layer's states, pooled and normalised.

Pooling is what the model's own `1_Pooling/config.json` (sentence-transformers) says; without one
the last token's state, as decoder models for retrieval are trained.
"""

from __future__ import annotations

import gc
import json
import pathlib
from collections.abc import Sequence
from typing import Any

from typing_extensions import override

from services.neuron.engine_api.model import LoadFailed, ModelInfo
from services.neuron.engines.common.token_model import EmbeddingModel
from services.neuron.engines.exllamav2.batch.prompt_logprobs import last_states
from services.neuron.engines.exllamav2.files.legacy_config import BAD
from services.neuron.engines.exllamav2.model.generators import GeneratorParts
from services.neuron.engines.exllamav2.text.tokeniser import JsonTokeniser

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


class Embedder(EmbeddingModel):
    """Embeds with ExLlamaV2, one text a pass."""

    def __init__(
        self, *, parts: GeneratorParts, tokeniser: JsonTokeniser, info: ModelInfo, mode: str
    ) -> None:
        super().__init__(tokeniser, info)
        self._parts = parts
        self._mode = mode

    @override
    def close(self) -> None:
        torch = self._parts.library.torch
        self._parts.release()
        del self._parts
        gc.collect()
        torch.cuda.empty_cache()

    @override
    def _vectors(self, inputs: Sequence[Sequence[int]]) -> list[list[float]]:
        return [self._vector(tokens) for tokens in inputs]

    def _vector(self, token_ids: Sequence[int]) -> list[float]:
        self._steps += 1
        states = last_states(self._parts, token_ids).float()
        pooled = {MEAN: states.mean(0), FIRST: states[0], LAST: states[-1]}
        vector = pooled[self._mode]
        values: list[float] = (vector / vector.norm().clamp(min=1e-12)).cpu().tolist()
        return values

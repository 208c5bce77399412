"""A forward pass that costs nothing, so that what is left is the loop around it."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from gpu.bench_setting import prompts

PROMPT_TOKENS = 256
NEW_TOKENS = 128
_SAID = 70
"""The token that every stream says."""


@dataclasses.dataclass
class Passes:
    """How often the model was asked for tokens, prefill not counted."""

    decoded: int = 0


def stub(parts: Any, *, streams: int) -> Passes:
    """Replaces a loaded model's forward pass; every stream says the same token again and again."""
    passes = Passes()
    vocabulary = -(-parts.model.config.vocab_size // 32) * 32
    logits = torch.zeros(streams, 1, vocabulary, dtype=torch.half)
    logits[..., _SAID] = 8.0

    def forward_chunk(*, input_ids: Any, preprocess_only: bool = False, **_: Any) -> Any:
        if preprocess_only:
            return {}
        passes.decoded += 1
        return {"logits": logits[: input_ids.shape[0]]}

    parts.model.forward_chunk = forward_chunk
    return passes


def wanted(streams: int) -> list[list[int]]:
    """A prompt for each of so many streams."""
    return prompts(streams, PROMPT_TOKENS, vocabulary=250, seed=streams)

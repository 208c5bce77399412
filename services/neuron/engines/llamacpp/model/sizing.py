"""How many sequences of which length a load gets. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from services.neuron.engine_api.model import LoadFailed, LoadPlan

DEFAULT_SEQUENCES: Final = 4
"""Where the plan leaves it open: a CPU decodes few sequences at a useful speed."""
EMBEDDING_SEQUENCES: Final = 16
"""Texts that are embedded together; they share the room of one."""
MOST_SEQUENCES: Final = 256
"""llama.cpp's own bound (LLAMA_MAX_SEQ)."""

# enum ggml_type, and bytes per element of the cache.
CACHE_TYPES: Final[Mapping[str, tuple[int, float]]] = MappingProxyType(
    {
        "fp16": (1, 2.0),
        "q8": (8, 34 / 32),
        "q4": (2, 18 / 32),
    }
)


@dataclasses.dataclass(frozen=True, slots=True)
class CacheShape:
    """How large the KV cache of a load is: context, sequences, tokens in all.

    Attributes:
        sequences: how many run together.
        context_tokens: longest prompt plus completion of each.
        ggml_type: of its elements.
    """

    sequences: int
    context_tokens: int
    ggml_type: int

    @property
    def total_tokens(self) -> int:
        """Room in all."""
        return self.sequences * self.context_tokens


def cache_shape(
    plan: LoadPlan, *, trained_tokens: int, values_per_token: int, free_bytes: int
) -> CacheShape:
    """Settles the cache of a load. Every sequence has its own fixed room.

    1. The context is what was asked for, at most what the model was trained for, at most the
       whole of `cache_tokens`.
    2. An embedding model takes up to `EMBEDDING_SEQUENCES` texts a pass, as many as divide its
       context evenly; they share one context.
    3. A generator gets the sequences that were asked for (`DEFAULT_SEQUENCES` where that is left
       open), at most `MOST_SEQUENCES`, and as many as `cache_tokens` holds whole.
    4. If fewer fit into the free memory, the number shrinks to what fits where it was left open;
       a number that was asked for is refused.

    Args:
        plan: what was asked for; `cache_tokens` bounds the number of sequences.
        trained_tokens: the longest context that the model was trained for; never exceeded.
        values_per_token: keys and values of all layers, in elements.
        free_bytes: memory that may be taken.

    Raises:
        LoadFailed: LOAD_FAILED, the format is not one of llama.cpp's; OUT_OF_MEMORY, not even one
            sequence of the asked length fits.
    """
    if plan.cache_format not in CACHE_TYPES:
        raise LoadFailed(
            "LOAD_FAILED",
            f"llama.cpp keeps no {plan.cache_format!r} cache; use one of {', '.join(CACHE_TYPES)}.",
        )
    ggml_type, element_bytes = CACHE_TYPES[plan.cache_format]
    context_tokens = min(plan.max_context_tokens or trained_tokens, trained_tokens)
    if plan.cache_tokens is not None:
        context_tokens = min(context_tokens, plan.cache_tokens)
    if plan.embedding:
        wanted = min(plan.max_sequences or EMBEDDING_SEQUENCES, context_tokens)
        # llama.cpp's pooling aborts the process unless the sequences divide the batch evenly.
        even = next(count for count in range(wanted, 0, -1) if context_tokens % count == 0)
        return CacheShape(even, context_tokens, ggml_type)
    sequences = min(plan.max_sequences or DEFAULT_SEQUENCES, MOST_SEQUENCES)
    if plan.cache_tokens is not None:
        sequences = max(1, min(sequences, plan.cache_tokens // context_tokens))
    sequence_bytes = max(1, int(context_tokens * values_per_token * element_bytes))
    fitting = free_bytes // sequence_bytes
    if fitting < (plan.max_sequences or 1):
        needed = sequence_bytes * sequences
        raise LoadFailed(
            "OUT_OF_MEMORY",
            f"The cache of {sequences} sequences of {context_tokens} tokens takes"
            f" {needed >> 20} MiB, and {free_bytes >> 20} MiB are free; lower max_context_tokens"
            " or max_sequences.",
        )
    return CacheShape(min(sequences, fitting), context_tokens, ggml_type)

"""How many sequences of which length a load gets, from what the devices have free. Pure."""

from __future__ import annotations

import dataclasses
from typing import Final

from services.neuron.engine_api.model import LoadFailed, LoadPlan
from services.neuron.engines.exllamav2.files import weights as weight_files
from services.neuron.engines.exllamav2.files.geometry import Geometry
from services.neuron.engines.exllamav2.files.weights import LoadEstimate, TensorSizes

PAGE: Final = 256
"""Tokens of a cache page; fixed inside the library."""
QUANTISED_GROUP: Final = 32
"""Elements of a quantised cache that share a scale."""
DEFAULT_SEQUENCES: Final = 16
INPUT_TOKENS: Final = 2048
"""Longest input of one forward pass, and the longest prefill chunk."""
DRAFT_TOKENS: Final = 4
FLOOR_TOKENS: Final = 4096
"""Where the cache's size is left open, less than this is not worth loading for."""
FIRST_RESERVED_BYTES: Final = (192 + 256) << 20
"""What autosplit holds back on the first device while it loads."""
RESERVED_BYTES: Final = (64 + 256) << 20
"""The same on every other device."""
_RETRY_SHARE: Final = 0.9
_LOAD_FAILED: Final = "LOAD_FAILED"


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a load.

    Attributes:
        context_tokens: longest prompt plus completion.
        table_tokens: length of the library's RoPE table: context, drafts, whole pages.
        sequences: how many run together.
        cache_tokens: of all sequences, whole pages.
        input_tokens: longest input of one forward pass.
        draft_tokens: drafted per step; 0 without speculation.
        cache_format: a key of `weights.BYTES_PER_ELEMENT`.
    """

    context_tokens: int
    table_tokens: int
    sequences: int
    cache_tokens: int
    input_tokens: int
    draft_tokens: int
    cache_format: str


def settle(
    plan: LoadPlan,
    geometry: Geometry,
    weights: TensorSizes,
    *,
    free_bytes: int,
    devices: int,
    other_bytes_per_token: float = 0.0,
    other_bytes: int = 0,
) -> Shape:
    """Settles the sizes of a load and checks that it will fit.

    1. The context is what was asked for, at most the model's own, at most what `cache_tokens`
       holds in whole pages less the drafts of a step.
    2. Sequences are what was asked for (`DEFAULT_SEQUENCES` where that is left open), at most
       what the longest input holds with the drafts of a step.
    3. `cache_tokens` that were asked for are rounded down to whole pages, at least one.
    4. Left open, the cache is what fits beside weights, buffers and `reserved_bytes`: at
       most the whole context for every sequence, at least the lesser of `FLOOR_TOKENS` and one
       whole context.
    5. What then does not fit into the free memory is refused with the numbers.

    Args:
        plan: what was asked for.
        geometry: of the model.
        weights: of the model.
        free_bytes: of all devices, context of this process not counted.
        devices: how many there are.
        other_bytes_per_token: cache of a draft model.
        other_bytes: weights of a draft model.

    Raises:
        LoadFailed: LOAD_FAILED for a format that the library does not have, or not for heads of
            this size; OUT_OF_MEMORY, with the
            numbers, for what cannot fit.
    """
    if plan.cache_format not in weight_files.BYTES_PER_ELEMENT:
        known = ", ".join(weight_files.BYTES_PER_ELEMENT)
        told = f"ExLlamaV2 keeps no {plan.cache_format!r} cache; use one of {known}."
        raise LoadFailed(_LOAD_FAILED, told)
    if plan.cache_format != "fp16" and geometry.head_dim % QUANTISED_GROUP:
        told = (
            f"A {plan.cache_format} cache holds heads of a multiple of {QUANTISED_GROUP}; this"
            f" model's are {geometry.head_dim}: use fp16."
        )
        raise LoadFailed(_LOAD_FAILED, told)
    drafts = DRAFT_TOKENS if plan.ngram_draft or plan.draft_path else 0
    context = min(plan.max_context_tokens or geometry.context, geometry.context)
    if plan.cache_tokens is not None:
        context = min(context, max(1, _pages_down(plan.cache_tokens) - drafts))
    shape = Shape(
        context_tokens=context,
        table_tokens=_pages_up(context + drafts),
        sequences=min(plan.max_sequences or DEFAULT_SEQUENCES, PAGE),
        cache_tokens=0,
        input_tokens=min(INPUT_TOKENS, _pages_up(context + drafts)),
        draft_tokens=drafts,
        cache_format=plan.cache_format,
    )
    # The library bounds sequences times tokens per step by the longest input.
    bound = shape.input_tokens // (1 + drafts)
    shape = dataclasses.replace(shape, sequences=min(shape.sequences, bound))
    fixed = estimate(shape, geometry, weights, devices=devices)
    room = free_bytes - fixed.weights - fixed.scratch - other_bytes - reserved_bytes(devices)
    per_token = _bytes_per_token(shape, geometry) + other_bytes_per_token
    tokens = _cache_tokens(plan, shape, fitting=_pages_down(int(max(0, room) / per_token)))
    needed = fixed.weights + fixed.scratch + other_bytes + int(tokens * per_token)
    if needed + reserved_bytes(devices) > free_bytes:
        raise LoadFailed("OUT_OF_MEMORY", _too_big(needed, free_bytes, fixed, tokens))
    return dataclasses.replace(shape, cache_tokens=tokens)


def estimate(
    shape: Shape, geometry: Geometry, weights: TensorSizes, *, devices: int
) -> LoadEstimate:
    """The memory of a load of this shape."""
    return weight_files.footprint(
        weights,
        geometry,
        cache_tokens=shape.cache_tokens,
        cache_format=shape.cache_format,
        max_input_tokens=shape.input_tokens,
        devices=devices,
    )


def reserved_bytes(devices: int) -> int:
    """What the library holds back on all devices until a load is done."""
    return FIRST_RESERVED_BYTES + (devices - 1) * RESERVED_BYTES


def smaller(plan: LoadPlan, shape: Shape) -> Shape | None:
    """The next shape to try where this one ran out of memory; None where nothing is left open."""
    tokens = _pages_down(int(shape.cache_tokens * _RETRY_SHARE))
    if plan.cache_tokens is not None or tokens < _floor(shape):
        return None
    return dataclasses.replace(shape, cache_tokens=tokens)


def _floor(shape: Shape) -> int:
    return min(_pages_up(FLOOR_TOKENS), shape.table_tokens)


def _cache_tokens(plan: LoadPlan, shape: Shape, *, fitting: int) -> int:
    if plan.cache_tokens is not None:
        return max(PAGE, _pages_down(plan.cache_tokens))
    most = shape.sequences * _pages_up(shape.context_tokens + shape.draft_tokens)
    return max(_floor(shape), min(most, fitting))


def _bytes_per_token(shape: Shape, geometry: Geometry) -> float:
    many = weight_files.cache_bytes(geometry, tokens=PAGE, cache_format=shape.cache_format)
    return many / PAGE


def _too_big(needed: int, free: int, fixed: LoadEstimate, tokens: int) -> str:
    return (
        f"The load needs {needed >> 20} MiB (weights {fixed.weights >> 20}, buffers"
        f" {fixed.scratch >> 20}, the rest for a cache of {tokens} tokens) and {free >> 20} MiB are"
        " free; lower cache_tokens or max_context_tokens, or use a smaller cache_format."
    )


def _pages_up(tokens: int) -> int:
    return -(-tokens // PAGE) * PAGE


def _pages_down(tokens: int) -> int:
    return tokens // PAGE * PAGE

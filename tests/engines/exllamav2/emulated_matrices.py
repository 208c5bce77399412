"""Quantised layers of ExLlamaV2 on a CPU: GPTQ and EXL2 weights are unpacked and used as they are.

A handle, which for the library is an address, is the key of a table here. Llama's layers alone are
emulated: RMS norms, no biases, SiLU.

Source of the formats: exllamav2 0.3.2 `ext.make_q_matrix` and its kernels; AutoGPTQ's v1 files.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

from tests.engines.exllamav2 import emulated_functions

_numbers = itertools.count(1)
_made: dict[int, Any] = {}
"""Everything behind a handle, as the extension keeps it: by address, until it is freed."""


@dataclasses.dataclass
class Attention:
    """Norm and projections of a quantised attention layer, with adapters by the library's ids."""

    norm: Any
    epsilon: float
    projections: tuple[Any, Any, Any, Any]
    heads: tuple[int, int, int]
    adapters: list[tuple[dict[int, Any], dict[int, Any]]]
    has_residual: bool


@dataclasses.dataclass
class Mlp:
    """Norm and projections of a quantised MLP."""

    norm: Any
    epsilon: float
    projections: tuple[Any, Any, Any]
    adapters: list[tuple[dict[int, Any], dict[int, Any]]]
    has_residual: bool


def make_group_map(groups: Any, rows: int) -> Any:
    from exllamav2.ext import make_group_map_py

    return make_group_map_py(groups, rows)


def make_q_matrix(
    packed: Any, permutation: Any, inverse: Any, scale: Any, scale_max: Any, groups: Any,
    _group_map: Any, zeros: Any, scales: Any, g_idx: Any, bias: Any, *_scratch: Any,
) -> int:  # fmt: skip
    assert bias.is_meta, "no biases are emulated"
    if not zeros.is_meta:
        if not permutation.is_meta:  # by the order of groups, as the extension fills them in
            order = g_idx.argsort(stable=True)
            permutation.copy_(order.short())
            inverse.copy_(order.argsort().short())
        return _keep(_columns(_gptq(packed, zeros, scales, g_idx)))
    stored = _exl2(packed, scale, scale_max, groups)
    # Without an order of its own, what comes in has been brought into the stored one.
    return _keep(_columns(stored if inverse.is_meta else stored[inverse.long()]))


def tensor_remap(words: Any, order: Any) -> None:
    """Puts columns into another order."""
    words.copy_(words[:, order.long()])


def tensor_remap_4bit(words: Any, order: Any) -> None:
    """The same with eight columns to a word."""
    numbers = _unpacked(words, 4, 1)[:, order.long()]
    shifted = numbers.unflatten(1, (-1, 8)) << (4 * _arange(8))
    whole = shifted.sum(-1)
    words.copy_(whole.where(whole < 2**31, whole - 2**32))


def free(handle: int) -> None:
    del _made[handle]


def reconstruct(handle: int, out: Any) -> None:
    out.copy_(_made[handle])


def gemm_half_q_half(x: Any, handle: int, out: Any, _force: bool) -> None:
    out.copy_(x @ _made[handle])


def make_q_attn(
    norm: Any, _bias: Any, is_rms: bool, _headnorm: bool, epsilon: float,
    q: int, k: int, v: int, o: int, _state: Any, _dq: Any, _rows: int, _hidden: int,
    heads: int, kv_heads: int, dim: int, _longest: int, has_residual: bool, *_others: Any,
) -> int:  # fmt: skip
    assert is_rms
    weights = (_made[q], _made[k], _made[v], _made[o])
    return _keep(Attention(norm, epsilon, weights, (heads, kv_heads, dim), [], has_residual))


def q_attn_forward_1(
    handle: int, x: Any, _batch: int, _length: int, past: int, offsets: Any,
    q: Any, k: Any, v: Any, sin: Any, cos: Any, adapters: list[int], _temp: Any,
) -> None:  # fmt: skip
    layer: Attention = _made[handle]
    heads, kv_heads, dim = layer.heads
    normed = _normed(x, layer)
    for number, target in enumerate((q, k, v)):
        target.copy_(_projected(layer, number, normed, adapters).view(target.shape))
    for target, count in ((q, heads), (k, kv_heads)):
        emulated_functions.rope_(target, sin, cos, past, count, dim, offsets, True)


def q_attn_forward_2(
    handle: int, x: Any, seen: Any, _batch: int, _length: int, adapters: list[int], _temp: Any
) -> None:
    layer: Attention = _made[handle]
    _put(layer, x, _projected(layer, 3, seen.view(*x.shape[:-1], -1), adapters))


def make_q_mlp(
    norm: Any, _bias: Any, is_rms: bool, epsilon: float, gate: int, up: int, down: int,
    _state: Any, _a: Any, _b: Any, _dq: Any, _rows: int, _gelu: bool, has_residual: bool,
    *_others: Any,
) -> int:  # fmt: skip
    assert is_rms
    return _keep(Mlp(norm, epsilon, (_made[gate], _made[up], _made[down]), [], has_residual))


def q_mlp_forward_(handle: int, x: Any, adapters: list[int], _temp: Any) -> None:
    from torch.nn import functional

    layer: Mlp = _made[handle]
    normed = _normed(x, layer)
    gate, up = (_projected(layer, number, normed, adapters) for number in (0, 1))
    _put(layer, x, _projected(layer, 2, functional.silu(gate) * up, adapters))


def set_loras(handle: int, *tables: dict[int, Any]) -> int:
    """Adapters of one layer; returns the size of a scratch buffer that nobody needs here."""
    _made[handle].adapters = list(zip(tables[::2], tables[1::2], strict=True))
    return 1


def _arange(count: int) -> Any:
    import torch

    return torch.arange(count)


def _keep(what: Any) -> int:
    number = next(_numbers)
    _made[number] = what
    return number


def _put(layer: Attention | Mlp, x: Any, out: Any) -> None:
    if layer.has_residual:
        x += out
    else:
        x.copy_(out)


def _columns(weights: Any) -> Any:
    """The same, with a column's numbers side by side: torch multiplies that ten times as fast."""
    return weights.t().contiguous().t()


def _normed(x: Any, layer: Attention | Mlp) -> Any:
    out = x.clone()
    emulated_functions.rms_norm(x, layer.norm, out, layer.epsilon)
    return out


def _projected(layer: Attention | Mlp, number: int, x: Any, adapters: list[int]) -> Any:
    out = x @ layer.projections[number]
    for a, b in layer.adapters[number : number + 1]:
        for adapter in adapters:
            if adapter in a:
                out = out + x @ a[adapter] @ b[adapter]
    return out


def _unpacked(packed: Any, bits: int, axis: int) -> Any:
    """Unsigned numbers out of int32 words, lowest bits first, along an axis."""
    import torch

    words = packed.long() & 0xFFFFFFFF
    shifts = torch.arange(0, 32, bits)
    spread = words.unsqueeze(axis + 1) >> shifts.view(-1, *[1] * (words.dim() - axis - 1))
    return (spread & (2**bits - 1)).flatten(axis, axis + 1)


def _gptq(packed: Any, zeros: Any, scales: Any, g_idx: Any) -> Any:
    levels = _unpacked(packed, 4, 0)
    inputs = levels.shape[0]
    group = _arange(inputs) // (inputs // scales.shape[0]) if g_idx.is_meta else g_idx.long()
    offset = (_unpacked(zeros, 4, 1) + 1)[group]
    return ((levels - offset).float() * scales.float()[group]).half()


def _exl2(packed: Any, scale: Any, scale_max: Any, groups: Any) -> Any:
    """Weights in the order in which they are stored: rows of important inputs first."""
    import torch

    bits, starts = groups[::2].tolist(), [*groups[1::2].tolist(), packed.shape[0]]
    steps = (_unpacked(scale, 4, 1) + 1).float() ** 2 * scale_max.float()[:, None]
    parts = []
    for number, width in enumerate(bits):
        assert 32 % width == 0, "bits that straddle words are not emulated"
        rows = packed[starts[number] : starts[number + 1]]
        levels = _unpacked(rows, width, 0) - 2 ** (width - 1)
        parts.append(levels.float() * steps[number])
    return torch.cat(parts).half()

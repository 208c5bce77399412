"""Attention without a cache, by torch's SDPA: vision towers, embeddings, autosplit's dry run.

Masks are aligned bottom-right, as flash-attn's are: the last query sees the last key.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from torch.nn.attention.bias import causal_lower_right


def attention(
    q: Any,
    k: Any,
    v: Any,
    *,
    scale: float | None,
    causal: bool,
    window_left: int = -1,
    softcap: float = 0.0,
) -> Any:
    """Attends queries to keys.

    Args:
        q: (batch, queries, heads, dim).
        k: (batch, keys, kv heads, dim); heads is a multiple of kv heads.
        v: the shape of k.
        scale: factor for the scores; None is 1/sqrt(dim).
        causal: keys after a query's own position are hidden.
        window_left: keys further back than this are hidden; -1 is off.
        softcap: scores are squeezed into ±softcap; 0 is off.

    Returns: the shape of q.
    """
    queries, keys, group = q.shape[1], k.shape[1], q.shape[2] // k.shape[2]
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if group > 1:
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    windowed = 0 <= window_left < keys
    if softcap > 0.0:
        factor = (q.shape[-1] ** -0.5 if scale is None else scale) / softcap
        scores = torch.tanh(q.float() @ k.float().transpose(-1, -2) * factor) * softcap
        hidden = ~visible(queries, keys, causal=causal, window_left=window_left, device=q.device)
        weights = scores.masked_fill(hidden, float("-inf")).softmax(-1)
        return (weights.to(v.dtype) @ v).transpose(1, 2)
    mask: Any = None
    if windowed:
        mask = visible(queries, keys, causal=causal, window_left=window_left, device=q.device)
    elif causal and queries > 1:
        mask = causal_lower_right(queries, keys)
    return functional.scaled_dot_product_attention(q, k, v, mask, scale=scale).transpose(1, 2)


def visible(queries: int, keys: int, *, causal: bool, window_left: int, device: Any) -> Any:
    """(queries, keys) bool: what each query may see, aligned bottom-right."""
    own = torch.arange(queries, device=device)[:, None] + (keys - queries)
    key = torch.arange(keys, device=device)[None, :]
    seen = torch.ones(queries, keys, dtype=torch.bool, device=device)
    if causal:
        seen &= key <= own
    if window_left >= 0:
        seen &= key >= own - window_left
    return seen

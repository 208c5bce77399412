"""Paged attention by gathering each sequence's pages: the slow fallback that works everywhere."""

from __future__ import annotations

from typing import Any

import torch

from services.neuron.engines.exllamav2.attention import dense


def attend(
    q: Any,
    k_cache: Any,
    v_cache: Any,
    k: Any,
    v: Any,
    *,
    cache_seqlens: Any,
    block_table: Any,
    scale: float,
    causal: bool,
    window_left: int,
    softcap: float,
) -> Any:
    """Appends new keys and values to the pages, then attends. Arguments as in `stand_in.Paged`."""
    new: int = 0 if k is None else k.shape[1]
    out = torch.empty_like(q)
    page = k_cache.shape[1]
    for row in range(q.shape[0]):
        past = int(cache_seqlens[row])
        total = past + new
        if k is not None:
            positions = torch.arange(past, total, device=q.device)
            pages = block_table[row, positions // page].long()
            k_cache[pages, positions % page], v_cache[pages, positions % page] = k[row], v[row]
        used = block_table[row, : -(-total // page)].long()
        out[row : row + 1] = dense.attention(
            q[row : row + 1],
            k_cache[used].flatten(0, 1)[None, :total],
            v_cache[used].flatten(0, 1)[None, :total],
            scale=scale,
            causal=causal,
            window_left=window_left,
            softcap=softcap,
        )
    return out

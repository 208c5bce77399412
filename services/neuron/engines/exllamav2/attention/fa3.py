"""FlashAttention-3 behind the same call (Hopper). The package is `flash_attn_interface`."""

from __future__ import annotations

from typing import Any

import flash_attn_interface

from services.neuron.engines.exllamav2.attention import paged_triton


class Fa3:
    """FlashAttention-3; falls back to our kernel for soft caps, which its builds leave out."""

    def __init__(self) -> None:
        self._triton = paged_triton.PagedAttention()

    def attend(
        self,
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
        """Appends and attends. Arguments as in `stand_in.Paged`."""
        if softcap > 0.0:
            return self._triton.attend(
                q,
                k_cache,
                v_cache,
                k,
                v,
                cache_seqlens=cache_seqlens,
                block_table=block_table,
                scale=scale,
                causal=causal,
                window_left=window_left,
                softcap=softcap,
            )
        return flash_attn_interface.flash_attn_with_kvcache(
            q,
            k_cache,
            v_cache,
            k=k,
            v=v,
            cache_seqlens=cache_seqlens,
            page_table=block_table,
            softmax_scale=scale,
            causal=causal,
            window_size=(window_left, -1 if window_left < 0 else 0),
        )

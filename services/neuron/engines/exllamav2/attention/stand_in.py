"""Puts modules named `flash_attn` and `flash_attn_2_cuda` where ExLlamaV2 looks for them.

ExLlamaV2 0.3.2 asks at import for flash-attn >= 2.5.7 with three functions, and for the compiled
module that its tensor-parallel code calls. Only the arguments that it passes are honoured; others
are refused loudly. Source: exllamav2/attn.py and exllamav2_ext/ext_tp.cpp (0.3.2), and the
signatures of flash-attn 2.8.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import os
import sys
import types
from typing import Any, Final, Protocol

import torch

from services.neuron.engines.exllamav2.attention import dense, paged_torch
from services.neuron.engines.exllamav2.attention.choice import VARIABLE, Backend, Facts, choose

_CLAIMED_VERSION: Final = "2.8.3"
_NO_WINDOW: Final = 10_000_000
"""The extension's C++ code passes numbers above this for "no window"."""


class Paged(Protocol):
    """Paged attention with append."""

    def __call__(
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
        """Appends new keys and values to the pages, then attends.

        Args:
            q: (batch, queries, heads, dim) half.
            k_cache: (pages, page, kv heads, dim) half, contiguous; written to.
            v_cache: the shape of k_cache; written to.
            k: (batch, new, kv heads, dim) half, or None where they are in the pages already.
            v: the shape of k.
            cache_seqlens: (batch,) int32, tokens in the cache before the new ones.
            block_table: (batch, columns) int32, which pages hold a sequence.
            scale: factor for the scores.
            causal: keys after a query's own position are hidden.
            window_left: keys further back than this are hidden; -1 is off.
            softcap: scores are squeezed into ±softcap; 0 is off.

        Returns: the shape of q.
        """
        ...


def install(wish: str | None = None) -> Backend:
    """Chooses a backend and makes `import flash_attn` find it. Call before `import exllamav2`.

    Args:
        wish: `auto` or a backend's name; None reads CORTEX_EXLLAMAV2_ATTENTION.

    Raises:
        NoBackendError: the wish cannot be met.
    """
    backend = choose(wish or os.environ.get(VARIABLE, "auto"), gather())
    if backend is not Backend.FLASH:
        outer, compiled = modules(_paged(backend))
        sys.modules["flash_attn"], sys.modules["flash_attn_2_cuda"] = outer, compiled
    return backend


def gather() -> Facts:
    """What this machine offers to `choose`."""
    devices = range(torch.cuda.device_count())
    return Facts(
        flash_attn=_flash_attn_version(),
        has_fa3=importlib.util.find_spec("flash_attn_interface") is not None,
        has_triton=importlib.util.find_spec("triton") is not None,
        capability=min((torch.cuda.get_device_capability(i) for i in devices), default=None),
        triton_interpreted=os.environ.get("TRITON_INTERPRET") == "1",
    )


def _flash_attn_version() -> tuple[int, ...] | None:
    """The real package's version; a broken installation counts as none."""
    try:
        outer = importlib.import_module("flash_attn")
        importlib.import_module("flash_attn_2_cuda")
    except ImportError:
        return None
    return tuple(int(part) for part in outer.__version__.split(".") if part.isdigit())


def _paged(backend: Backend) -> Paged:
    if backend is Backend.TORCH:
        return paged_torch.attend
    if backend is Backend.FA3:
        from services.neuron.engines.exllamav2.attention.fa3 import Fa3

        return Fa3().attend
    from services.neuron.engines.exllamav2.attention.paged_triton import PagedAttention

    return PagedAttention().attend


def modules(paged: Paged) -> tuple[types.ModuleType, types.ModuleType]:
    """The two stand-in modules over one implementation: `flash_attn` and its compiled half."""

    def flash_attn_with_kvcache(
        q: Any,
        k_cache: Any,
        v_cache: Any,
        k: Any = None,
        v: Any = None,
        cache_seqlens: Any = None,
        block_table: Any = None,
        softmax_scale: float | None = None,
        causal: bool = False,  # noqa: FBT001, FBT002 - flash-attn's signature
        window_size: tuple[int, int] = (-1, -1),
        softcap: float = 0.0,
        **others: Any,
    ) -> Any:
        _refuse(others)
        if isinstance(cache_seqlens, int):
            cache_seqlens = torch.full(
                (q.shape[0],), cache_seqlens, dtype=torch.int32, device=q.device
            )
        if block_table is None:  # a contiguous cache: each row is one page
            rows = torch.arange(k_cache.shape[0], dtype=torch.int32, device=q.device)
            block_table = rows.unsqueeze(1)
        return paged(
            q,
            k_cache,
            v_cache,
            k,
            v,
            cache_seqlens=cache_seqlens,
            block_table=block_table,
            scale=q.shape[-1] ** -0.5 if softmax_scale is None else softmax_scale,
            causal=causal,
            window_left=window_size[0],
            softcap=softcap,
        )

    def fwd_kvcache(  # called by the extension's C++ code in tensor-parallel mode, positionally
        q: Any,
        k_cache: Any,
        v_cache: Any,
        k: Any,
        v: Any,
        seqlens: Any,
        rotary_cos: Any,
        rotary_sin: Any,
        batch_index: Any,
        left_pad: Any,
        block_table: Any,
        alibi: Any,
        out: Any,
        scale: float,
        causal: bool,  # noqa: FBT001
        window_left: int,
        window_right: int,
        softcap: float,
        *_splits: Any,
    ) -> list[Any]:
        _refuse(
            {
                "rotary_cos": rotary_cos,
                "rotary_sin": rotary_sin,
                "cache_batch_idx": batch_index,
                "cache_leftpad": left_pad,
                "alibi_slopes": alibi,
            }
        )
        result = flash_attn_with_kvcache(
            q,
            k_cache,
            v_cache,
            k,
            v,
            cache_seqlens=seqlens,
            block_table=block_table,
            softmax_scale=scale,
            causal=causal,
            window_size=(-1 if window_left >= _NO_WINDOW else window_left, window_right),
            softcap=softcap,
        )
        if out is not None:
            out.copy_(result)
            result = out
        return [result, None]

    outer = _module("flash_attn")
    outer.__dict__.update(
        __version__=_CLAIMED_VERSION,
        flash_attn_func=flash_attn_func,
        flash_attn_varlen_func=flash_attn_varlen_func,
        flash_attn_with_kvcache=flash_attn_with_kvcache,
    )
    compiled = _module("flash_attn_2_cuda")
    compiled.__dict__["fwd_kvcache"] = fwd_kvcache
    return outer, compiled


def flash_attn_func(
    q: Any,
    k: Any,
    v: Any,
    softmax_scale: float | None = None,
    causal: bool = False,  # noqa: FBT001, FBT002 - flash-attn's signature
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    **others: Any,
) -> Any:
    """flash-attn's call without a cache."""
    _refuse(others)
    return dense.attention(
        q,
        k,
        v,
        scale=softmax_scale,
        causal=causal,
        window_left=window_size[0],
        softcap=softcap,
    )


def flash_attn_varlen_func(
    q: Any,
    k: Any,
    v: Any,
    cu_seqlens_q: Any,
    cu_seqlens_k: Any,
    _max_seqlen_q: int,
    _max_seqlen_k: int,
    softmax_scale: float | None = None,
    causal: bool = False,  # noqa: FBT001, FBT002 - flash-attn's signature
    **others: Any,
) -> Any:
    """flash-attn's call for sequences laid end to end (vision towers): (tokens, heads, dim)."""
    _refuse(others)
    out = torch.empty_like(q)
    queries, keys = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    for q0, q1, k0, k1 in zip(queries, queries[1:], keys, keys[1:], strict=False):
        row = dense.attention(
            q[None, q0:q1], k[None, k0:k1], v[None, k0:k1], scale=softmax_scale, causal=causal
        )
        out[q0:q1] = row[0]
    return out


def _refuse(arguments: dict[str, Any]) -> None:
    given = sorted(name for name, value in arguments.items() if value not in (None, False, 0))
    if given:
        raise TypeError(f"the flash-attn stand-in does not take {', '.join(given)}")


def _module(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    return module

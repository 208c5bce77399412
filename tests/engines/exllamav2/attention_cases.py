"""Cases of paged attention and what they must give, computed in float64 by the definition."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch

PAGE = 256


@dataclasses.dataclass(frozen=True)
class Case:
    """One call.

    Attributes:
        queries: per sequence.
        heads, kv_heads, dim: of the attention.
        lengths: tokens in the cache before the call, per sequence.
        appends: as many new keys as queries come with the call.
        window: how far back a query sees; -1 is off.
        softcap: 0 is off.
    """

    queries: int
    heads: int
    kv_heads: int
    dim: int
    lengths: tuple[int, ...]
    appends: bool = True
    window: int = -1
    softcap: float = 0.0


CASES = (
    Case(1, 9, 3, 64, (37,)),
    Case(1, 8, 2, 64, (5, 256, 700)),
    Case(5, 2, 2, 128, (255, 511)),
    Case(130, 9, 3, 64, (130,), appends=False),
    Case(70, 2, 1, 128, (600,), appends=False),
    Case(1, 4, 2, 80, (300, 900)),
    Case(1, 8, 4, 64, (700, 90), window=128),
    Case(40, 2, 1, 64, (640,), appends=False, window=100),
    Case(3, 4, 2, 128, (300, 20), softcap=30.0),
    Case(1, 8, 2, 128, (1000, 3, 257, 512)),
)


def relative_error(case: Case, attend: Callable[..., Any], device: str, seed: int = 0) -> float:
    """Runs a case; asserts that the pages hold what was appended.

    Returns: the norm of the difference to float64 over the norm of the result.
    """
    inputs = _inputs(case, seed)
    expected, k_pages, v_pages = _reference(case, *inputs)
    moved = [None if x is None else x.to(device) for x in inputs]
    q, k_cache, v_cache, k, v, lengths, table = moved
    out = attend(
        q,
        k_cache,
        v_cache,
        k,
        v,
        cache_seqlens=lengths,
        block_table=table,
        scale=1 / math.sqrt(case.dim),
        causal=True,
        window_left=case.window,
        softcap=case.softcap,
    )
    assert k_cache is not None
    assert v_cache is not None
    assert torch.equal(k_cache.cpu(), k_pages)
    assert torch.equal(v_cache.cpu(), v_pages)
    return float((out.cpu().double() - expected).norm() / expected.norm())


def _inputs(case: Case, seed: int) -> tuple[Any, ...]:
    random = torch.Generator().manual_seed(seed)

    def half(*shape: int) -> Any:
        return torch.randn(*shape, generator=random).half()

    batch = len(case.lengths)
    totals = [length + (case.queries if case.appends else 0) for length in case.lengths]
    columns = max(-(-total // PAGE) for total in totals)
    pages = batch * columns + 3
    table = torch.randperm(pages, generator=random)[: batch * columns]
    new = (batch, case.queries, case.kv_heads, case.dim)
    return (
        half(batch, case.queries, case.heads, case.dim),
        half(pages, PAGE, case.kv_heads, case.dim),
        half(pages, PAGE, case.kv_heads, case.dim),
        half(*new) if case.appends else None,
        half(*new) if case.appends else None,
        torch.tensor(case.lengths, dtype=torch.int32),
        table.reshape(batch, columns).int(),
    )


def _reference(
    case: Case, q: Any, k_cache: Any, v_cache: Any, k: Any, v: Any, lengths: Any, table: Any
) -> tuple[Any, Any, Any]:
    k_pages, v_pages = k_cache.clone(), v_cache.clone()
    group = case.heads // case.kv_heads
    outputs = []
    for row, length in enumerate(lengths.tolist()):
        total = length
        for step in range(case.queries if case.appends else 0):
            page, place = int(table[row, total // PAGE]), total % PAGE
            k_pages[page, place], v_pages[page, place] = k[row, step], v[row, step]
            total += 1
        used = table[row, : -(-total // PAGE)].long()
        keys, values = (
            pages[used].reshape(-1, case.kv_heads, case.dim)[:total].double()
            for pages in (k_pages, v_pages)
        )
        keys, values = keys.repeat_interleave(group, 1), values.repeat_interleave(group, 1)
        scores = torch.einsum("qhd,khd->hqk", q[row].double(), keys) / math.sqrt(case.dim)
        if case.softcap:
            scores = torch.tanh(scores / case.softcap) * case.softcap
        own = torch.arange(case.queries)[:, None] + total - case.queries
        key = torch.arange(total)[None]
        hidden = key > own
        if case.window >= 0:
            hidden |= key < own - case.window
        weights = scores.masked_fill(hidden, -math.inf).softmax(-1)
        outputs.append(torch.einsum("hqk,khd->qhd", weights, values))
    return torch.stack(outputs), k_pages, v_pages

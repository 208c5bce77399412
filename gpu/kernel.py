"""The attention kernel: ten cases against float64, and how fast it reads the cache."""

from __future__ import annotations

import math
import os
from typing import Any

from gpu.bench_setting import DEVICE, EMULATED, keep

if EMULATED:
    os.environ["TRITON_INTERPRET"] = "1"

SPEED_CASES = (  # tokens: in the cache
    {"batch": 1, "queries": 1, "heads": 32, "kv": 8, "dim": 128, "tokens": 4096},
    {"batch": 1, "queries": 1, "heads": 32, "kv": 8, "dim": 128, "tokens": 65_536},
    {"batch": 16, "queries": 1, "heads": 32, "kv": 8, "dim": 128, "tokens": 4096},
    {"batch": 64, "queries": 1, "heads": 32, "kv": 8, "dim": 128, "tokens": 1024},
    {"batch": 1, "queries": 1024, "heads": 32, "kv": 8, "dim": 128, "tokens": 4096},
)


def main() -> None:
    """Keeps errors of both backends, and times of the kernel."""
    import torch

    from services.neuron.engines.exllamav2.attention import paged_torch
    from services.neuron.engines.exllamav2.attention.paged_triton import PagedAttention
    from tests.engines.exllamav2.attention_cases import CASES, relative_error

    kernel = PagedAttention()
    errors = [relative_error(case, kernel.attend, DEVICE) for case in CASES]
    fallback = [relative_error(case, paged_torch.attend, DEVICE) for case in CASES]
    result: dict[str, Any] = {
        "cases": len(errors),
        "passed": sum(error < 1e-3 for error in errors),  # noqa: PLR2004 - fp16
        "worst_relative_error": max(errors),
        "fallback_worst_relative_error": max(fallback),
        "speed": [],
    }
    if not EMULATED:
        with torch.inference_mode():
            result["speed"] = [_speed(torch, kernel, **case) for case in SPEED_CASES]
    keep("kernel", result)


def _speed(
    torch: Any, kernel: Any, *, batch: int, queries: int, heads: int, kv: int, dim: int, tokens: int
) -> dict[str, Any]:
    def half(*shape: int) -> Any:
        return torch.randn(*shape, device="cuda", dtype=torch.float16)

    columns = tokens // 256 + 1
    table = torch.arange(batch * columns, device="cuda", dtype=torch.int32).view(batch, columns)
    pages = (batch * columns, 256, kv, dim)
    q, k, v = half(batch, queries, heads, dim), half(batch, queries, kv, dim), None
    k_cache, v_cache, v = half(*pages), half(*pages), half(batch, queries, kv, dim)
    lengths = torch.full((batch,), tokens - queries, device="cuda", dtype=torch.int32)

    def call() -> None:
        kernel.attend(
            q, k_cache, v_cache, k, v, cache_seqlens=lengths, block_table=table,
            scale=1 / math.sqrt(dim), causal=True, window_left=-1, softcap=0.0,
        )  # fmt: skip

    for _ in range(5):
        call()
    # The device's own clock: launches from Python would be most of a short call's time.
    begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    rounds = 50
    begun.record()
    for _ in range(rounds):
        call()
    ended.record()
    ended.synchronize()
    seconds = begun.elapsed_time(ended) / 1000 / rounds
    moved = 4 * batch * tokens * kv * dim
    return {
        "shape": f"batch {batch}, queries {queries}, cache {tokens}",
        "microseconds": round(seconds * 1e6, 1),
        "gigabytes_per_second": round(moved / seconds / 1e9),
        "teraflops": round(4 * batch * queries * heads * dim * tokens / seconds / 1e12, 2),
    }


if __name__ == "__main__":
    main()

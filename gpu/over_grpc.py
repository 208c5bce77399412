"""The same load as `raw_loop`, through a neuron over gRPC."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

from gpu.bench_setting import (
    NEW_TOKENS,
    PROMPT_TOKENS,
    STREAMS,
    WARM_TOKENS,
    forget_of,
    keep_of,
    models,
    prompts,
)
from gpu.neuron import Neuron, running

_LIKELIEST_VOCABULARY = 250
"""Ids below this are in every vocabulary of the proof's models."""


async def main() -> None:
    """Keeps tokens per second by model and number of streams."""
    async with running("throughput") as neuron:
        for name in models():
            forget_of("over_grpc", name)
            begun = time.perf_counter()
            await neuron.load(name)
            load_seconds = time.perf_counter() - begun
            rows = {}
            for count in STREAMS:
                # As in `raw_loop`: once without a clock.
                await _run(neuron, name, count, seed=1000 + count, tokens=WARM_TOKENS)
                rows[str(count)] = await _run(neuron, name, count, seed=count)
            result = {"load_seconds": round(load_seconds, 2), "streams": rows}
            keep_of("over_grpc", name, result)
            await neuron.unload(name)


async def _run(
    neuron: Neuron, name: str, count: int, *, seed: int, tokens: int = NEW_TOKENS
) -> dict[str, Any]:
    wanted = prompts(count, PROMPT_TOKENS, vocabulary=_LIKELIEST_VOCABULARY, seed=seed)
    begun = time.perf_counter()
    streams = [neuron.generate(name, prompt, tokens=tokens) for prompt in wanted]
    answers = await asyncio.gather(*streams)
    seconds = time.perf_counter() - begun
    assert all(len(said) == tokens for said, _, _ in answers), "a stream is short of tokens"
    waits = sorted(times[0] - begun for _, _, times in answers)
    gaps = sorted(b - a for _, _, t in answers for a, b in itertools.pairwise(t))
    return {
        "seconds": round(seconds, 3),
        "tokens_per_second": round(count * tokens / seconds, 1),
        "first_token_p50": round(waits[len(waits) // 2], 4),
        "first_token_p95": round(waits[int(len(waits) * 0.95)], 4),
        "gap_p95": round(gaps[int(len(gaps) * 0.95)], 4) if gaps else None,
    }


if __name__ == "__main__":
    asyncio.run(main())

"""The library's own loop without Cortex: the speed to be compared with."""

from __future__ import annotations

import time
from typing import Any

from gpu.bench_setting import (
    CACHE_TOKENS,
    CONTEXT_TOKENS,
    NEW_TOKENS,
    PROMPT_TOKENS,
    SEQUENCES,
    STREAMS,
    WARM_TOKENS,
    emulate,
    forget_of,
    keep_of,
    models,
    prompts,
)


def main() -> None:
    """Keeps tokens per second by model and number of streams."""
    emulate()
    for name, path in models().items():
        forget_of("raw_loop", name)
        keep_of("raw_loop", name, _measure(path))


def _measure(path: Any) -> dict[str, Any]:
    import gc

    from services.neuron.engine_api.model import LoadPlan
    from services.neuron.engines.exllamav2.files.configuration import ModelFolder
    from services.neuron.engines.exllamav2.library.library import open_library

    library = open_library()
    from services.neuron.engines.exllamav2.model import loading

    plan = LoadPlan(
        "raw",
        "exllamav2",
        str(path),
        max_context_tokens=CONTEXT_TOKENS,
        max_sequences=SEQUENCES,
        cache_tokens=CACHE_TOKENS,
    )
    steps = loading.load(library, plan, ModelFolder.read(path))
    begun = time.perf_counter()
    while True:
        try:
            next(steps)
        except StopIteration as done:
            parts = done.value
            break
    load_seconds = time.perf_counter() - begun
    generator = library.generator.ExLlamaV2DynamicGenerator(**parts.generator_arguments)
    generator.max_chunk_size = parts.shape.input_tokens
    vocabulary = parts.model.config.vocab_size
    rows = {}
    for count in STREAMS:
        # Kernels are chosen, and graphs recorded, by the number of streams.
        warm = prompts(count, PROMPT_TOKENS, vocabulary=vocabulary, seed=1000 + count)
        drive(library, generator, warm, new_tokens=WARM_TOKENS)
        wanted = prompts(count, PROMPT_TOKENS, vocabulary=vocabulary, seed=count)
        rows[str(count)] = drive(library, generator, wanted)
    parts.retire(generator)
    parts.release()
    del generator, parts, steps
    gc.collect()
    library.torch.cuda.empty_cache()
    attention = library.facts["attention"]
    return {"load_seconds": round(load_seconds, 2), "attention": attention, "streams": rows}


def drive(
    library: Any, generator: Any, wanted: list[list[int]], *, new_tokens: int = NEW_TOKENS
) -> dict[str, float]:
    """The library's own loop over greedy jobs: seconds, tokens a second, waits for the first."""
    torch, made = library.torch, library.generator
    generator.reset_page_table()
    settings = made.ExLlamaV2Sampler.Settings
    for prompt in wanted:
        job = made.ExLlamaV2DynamicJob(
            input_ids=torch.tensor([prompt], dtype=torch.long),
            max_new_tokens=new_tokens,
            gen_settings=settings.greedy(),
        )
        generator.enqueue(job)
    first: dict[int, float] = {}
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    begun = time.perf_counter()
    while generator.num_remaining_jobs():
        for result in generator.iterate():
            if result["stage"] == "streaming":
                first.setdefault(result["serial"], time.perf_counter() - begun)
    seconds = time.perf_counter() - begun
    waits = sorted(first.values())
    return {
        "seconds": round(seconds, 3),
        "tokens_per_second": round(len(wanted) * new_tokens / seconds, 1),
        "first_token_p50": round(waits[len(waits) // 2], 4),
        "first_token_max": round(waits[-1], 4),
    }


if __name__ == "__main__":
    main()

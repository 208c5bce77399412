"""`python -m bench.engine_loop`: what our loop costs per pass beside ExLlamaV2's own, on a CPU.

The model's forward pass is stubbed, and the extension's sampler is one `argmax`: cheaper than the
real one, so that the library's loop looks no slower than it is. The vocabulary is tiny: what grows
with it is the device's work. CPU time of the thread, in rounds, one loop after the other; medians.
Run it in the environment of `scripts/test-exllamav2`.
"""

from __future__ import annotations

import argparse
import pathlib
import statistics
import tempfile
import time
from typing import Any

from tests.engines.exllamav2 import emulation

STREAMS = (4, 16, 64)
WANTED = {16: 0.25, 64: 0.6}
"""Most extra milliseconds per pass."""


def main() -> None:
    """Prints milliseconds per pass of both loops, and the difference."""
    parser = argparse.ArgumentParser(prog="python -m bench.engine_loop")
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    emulation.install()
    with tempfile.TemporaryDirectory() as folder:
        model = _load(pathlib.Path(folder))
        print("| streams | passes | the library's loop, ms | ours, ms | extra ms | wanted |")
        print("|---|---|---|---|---|---|")
        for streams in STREAMS:
            _row(model, streams, rounds)
        model.close()


def _load(folder: pathlib.Path) -> Any:
    from services.neuron.engines import create_engine
    from tests.engines.exllamav2 import folders
    from tests.engines.exllamav2.loading_models import load

    engine = create_engine("exllamav2")
    made = folders.build_random(folder / "random")
    fields = {"max_sequences": max(STREAMS), "max_context_tokens": 512}
    model = load(engine, made, cache_tokens=512 * max(STREAMS), **fields)
    from exllamav2.generator import sampler

    sampler.ext_c.sample_basic = _best
    return model


def _best(logits: Any, *arguments: Any) -> list[float]:
    """The extension's sampler for greedy jobs, in as little time as Python allows."""
    arguments[8][0, 0] = logits.argmax()
    return []


def _parts(model: Any) -> Any:
    return model._parts  # noqa: SLF001 - both loops run over the same ones


def _row(model: Any, streams: int, rounds: int) -> None:
    from tests.engines.exllamav2.stubbed_forward import stub

    passes = stub(_parts(model), streams=streams)
    theirs: list[float] = []
    ours: list[float] = []
    counts: list[int] = []
    for _ in range(rounds):
        for measure, times in ((_library, theirs), (_cortex, ours)):
            before = passes.decoded
            seconds = measure(model, streams)
            counts.append(passes.decoded - before)
            times.append(seconds * 1000 / counts[-1])
    one, other = statistics.median(theirs), statistics.median(ours)
    print(
        f"| {streams} | {counts[-2]} and {counts[-1]} | {one:.3f} | {other:.3f} |"
        f" {other - one:+.3f} | {WANTED.get(streams, '')} |",
        flush=True,
    )


def _library(model: Any, streams: int) -> float:
    from gpu.raw_loop import drive
    from tests.engines.exllamav2.stubbed_forward import NEW_TOKENS, wanted

    parts = _parts(model)
    generator = parts.library.generator.ExLlamaV2DynamicGenerator(**parts.generator_arguments)
    prompts = wanted(streams)
    began = time.thread_time()
    drive(parts.library, generator, prompts, new_tokens=NEW_TOKENS)
    seconds = time.thread_time() - began
    parts.retire(generator)
    return seconds


def _cortex(model: Any, streams: int) -> float:
    from tests.contract.engine.driving import run
    from tests.engines.exllamav2.loading_models import task
    from tests.engines.exllamav2.stubbed_forward import NEW_TOKENS, wanted

    tasks = [task(prompt, tokens=NEW_TOKENS) for prompt in wanted(streams)]
    began = time.thread_time()
    run(model, *tasks)
    return time.thread_time() - began


if __name__ == "__main__":
    main()

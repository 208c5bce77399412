"""llama.cpp on this machine's GPUs: our engine loop beside the library's own batched one.

The same library, model, cache and batch in one process: a bare loop of `llama_decode` over all
streams, which samples greedily, and the engine as a worker runs it. In turn; medians.
"""

from __future__ import annotations

import operator
import os
import pathlib
import statistics
import time
from collections.abc import Sequence
from typing import Any

from gpu.bench_setting import (
    EMULATED,
    NEW_TOKENS,
    PROMPT_TOKENS,
    SEQUENCES,
    STREAMS,
    WORK,
    keep,
    prompts,
)
from gpu.make_models import gguf_file
from services.neuron.devices.ggml import GgmlDevice
from services.neuron.engine_api.engine import LoadedModel
from services.neuron.engine_api.events import Delta, Ended, Failed
from services.neuron.engine_api.model import LoadPlan, Offload
from services.neuron.engine_api.task import Prompt, SamplingParams, StopParams, Task
from services.neuron.engines.llamacpp.batch.batch import TokenBatch
from services.neuron.engines.llamacpp.batch.context import Context
from services.neuron.engines.llamacpp.batch.threads import Threads
from services.neuron.engines.llamacpp.engine import LlamaCppEngine
from services.neuron.engines.llamacpp.library import devices
from services.neuron.engines.llamacpp.library.library import Library
from services.neuron.engines.llamacpp.library.locate import locate
from services.neuron.engines.llamacpp.model import loading

_ROUNDS = 2 if EMULATED else 5
_PART = "llamacpp"
_LIBRARY = "CORTEX_LLAMACPP_LIBRARY"


def main() -> None:
    """Keeps tokens per second of both by number of streams, and whether their tokens are equal."""
    path = _tiny() if EMULATED else gguf_file()
    if path is None:
        keep(_PART, {"not_run": "there is no GGUF file; set GGUF"})
        return
    try:
        library = Library(locate(os.environ.get(_LIBRARY, "")))
    except ImportError as error:
        keep(_PART, {"not_run": str(error)})
        return
    gpus = [one for one in devices.listed(library) if one.kind in {"gpu", "igpu"}]
    if not gpus and not EMULATED:
        keep(_PART, {"not_run": f"llama.cpp sees no GPU here; name a build by {_LIBRARY}"})
        return
    keep(_PART, _measured(library, path, gpus))


def _tiny() -> pathlib.Path:
    from tests.doubles import scripted

    WORK.mkdir(parents=True, exist_ok=True)
    return scripted.build(WORK / "tiny.gguf", scripted.Script(context=PROMPT_TOKENS + NEW_TOKENS))


def _measured(library: Library, path: pathlib.Path, gpus: Sequence[GgmlDevice]) -> dict[str, Any]:
    plan = LoadPlan(
        "proof",
        "llamacpp",
        str(path),
        max_context_tokens=PROMPT_TOKENS + NEW_TOKENS,
        max_sequences=SEQUENCES,
        offload=Offload(device_ids=tuple(one.device_id for one in gpus), gpu_layers=None),
    )
    bare, ours = _Bare(library, plan), _Engine(library, plan)
    rows: dict[str, dict[str, Any]] = {}
    for count in STREAMS:
        asked = prompts(count, PROMPT_TOKENS, vocabulary=bare.vocabulary, seed=count)
        pairs = [(bare.run(asked), ours.run(asked)) for _ in range(_ROUNDS + 1)][1:]
        speeds = [[count * NEW_TOKENS / one.seconds for one in pair] for pair in pairs]
        bare_tokens, our_tokens = (one.tokens for one in pairs[0])
        rows[str(count)] = {
            "library_tokens_per_second": round(statistics.median(each[0] for each in speeds), 1),
            "engine_tokens_per_second": round(statistics.median(each[1] for each in speeds), 1),
            "ratio": round(statistics.median(each[1] / each[0] for each in speeds), 3),
            "equal_outputs": sum(map(operator.eq, bare_tokens, our_tokens)),
        }
    return {
        "library": library.version,
        "devices": [one.description for one in gpus] or ["the CPU"],
        "streams": rows,
    }


class _Run:
    """What one side made, and how long it took."""

    def __init__(self, seconds: float, tokens: list[list[int]]) -> None:
        self.seconds = seconds
        self.tokens = tokens


class _Bare:
    """The library's own batched loop."""

    def __init__(self, library: Library, plan: LoadPlan) -> None:
        made: list[loading.LoadedFile] = []

        def assemble(loaded: loading.LoadedFile) -> Any:
            made.append(loaded)
            return loaded

        for _ in loading.load(library, plan, assemble):
            pass
        loaded = made[0]
        threads = Threads(library, context=loaded.context, most=loaded.threads)
        self._context = Context(
            library, model=loaded.model, context=loaded.context, threads=threads
        )
        vocabulary: int = library.vocab_n_tokens(library.model_get_vocab(loaded.model))
        self.vocabulary = vocabulary
        self._batch = TokenBatch(SEQUENCES + loading.PREFILL_TOKENS)

    def run(self, asked: Sequence[list[int]]) -> _Run:
        self._context.clear()
        begun = time.perf_counter()
        made: list[list[int]] = []
        for sequence, prompt in enumerate(asked):
            made.append([self._read(prompt, sequence)])
        for step in range(NEW_TOKENS - 1):
            self._batch.clear()
            places = [
                self._batch.add_one(
                    tokens[-1], sequence=sequence, position=len(asked[sequence]) + step
                )
                for sequence, tokens in enumerate(made)
            ]
            self._context.decode(self._batch)
            for tokens, place in zip(made, places, strict=True):
                tokens.append(int(self._context.logits(place).argmax()))
        return _Run(time.perf_counter() - begun, made)

    def _read(self, prompt: list[int], sequence: int) -> int:
        place = 0
        for start in range(0, len(prompt), loading.PREFILL_TOKENS):
            part = prompt[start : start + loading.PREFILL_TOKENS]
            is_last = start + len(part) == len(prompt)
            self._batch.clear()
            want = None if is_last else False
            place = self._batch.add(part, sequence=sequence, position=start, want=want)
            self._context.decode(self._batch)
        return int(self._context.logits(place).argmax())


class _Engine:
    """The engine as a worker runs it."""

    def __init__(self, library: Library, plan: LoadPlan) -> None:
        steps = LlamaCppEngine(library).load(plan)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                self._model: LoadedModel = done.value
                break
        self._number = 0

    def run(self, asked: Sequence[list[int]]) -> _Run:
        stop = StopParams(max_tokens=NEW_TOKENS, ignore_eos=True)
        made: dict[int, list[int]] = {}
        begun = time.perf_counter()
        for prompt in asked:
            self._number += 1
            made[self._number] = []
            sampling = SamplingParams(temperature=0)
            # a principal of its own, so that nothing of the round before is reused
            task = Task(
                self._number, "proof", Prompt(), sampling, stop, principal=str(self._number)
            )
            self._model.submit(task, prompt)
        left = len(asked)
        while left:
            for event in self._model.step():
                if isinstance(event, Failed):
                    raise SystemExit(event.message)
                if isinstance(event, Delta):
                    made[event.task_id] += event.token_ids
                left -= isinstance(event, Ended)
        return _Run(time.perf_counter() - begun, list(made.values()))


if __name__ == "__main__":
    main()

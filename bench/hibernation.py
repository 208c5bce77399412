"""`python -m bench.hibernation MODEL`: first tokens after a swap, with its cache and without.

The engine in this process, as a worker has it: llama.cpp for a file, ExLlamaV2 for a folder, on a
GPU or, with `--emulated`, on the device that its tests emulate (in their environment). Each
conversation is read once; then the model is unloaded (which saves its cache) and loaded again
before each one's next turn, in turn. Times are CPU seconds of this process, which neighbours on
the machine hardly change; one thread.
"""

from __future__ import annotations

import argparse
import itertools
import pathlib
import statistics
import tempfile
import time

from services.neuron.engine_api.engine import Hibernating, LoadedModel
from services.neuron.engine_api.events import Delta, Started
from services.neuron.engine_api.model import KvStorePlan, KvTier, LoadPlan
from services.neuron.engine_api.task import Prompt, SamplingParams, StopParams, Task
from services.neuron.engines import create_engine
from services.neuron.engines.common.kv_store.sealing import make_key

_IDS = itertools.count(1)
_TURN_TOKENS = 32
_ANSWER_TOKENS = 8


class Swaps:
    """One model that comes and goes, and the conversations with it."""

    def __init__(self, asked: argparse.Namespace, store: KvStorePlan | None) -> None:
        self._asked = asked
        self._store = store
        self._engine = create_engine(_engine_of(asked.model))
        self.loads: list[float] = []
        self.saves: list[float] = []
        self.first_tokens: list[float] = []
        self.cached: list[int] = []

    def run(self) -> None:
        """Reads every conversation, then swaps before each next turn."""
        conversations = [_text(self._asked.tokens, n) for n in range(self._asked.conversations)]
        model = self._load()
        for conversation in conversations:
            self._turn(model, conversation)
        for swap in range(self._asked.swaps):
            self._unload(model)
            model = self._load()
            conversation = conversations[swap % len(conversations)]
            conversation += _text(_TURN_TOKENS, 1000 + swap)
            seconds, cached = self._turn(model, conversation)
            self.first_tokens.append(seconds)
            self.cached.append(cached)
        model.close()

    def _load(self) -> LoadedModel:
        plan = LoadPlan(
            "i",
            self._engine.name,
            self._asked.model,
            max_sequences=self._asked.conversations,
            max_context_tokens=self._asked.tokens + 1024,
            threads=1 if self._engine.name == "llamacpp" else None,
            kv_store=self._store,
        )
        since = time.process_time()
        steps = self._engine.load(plan)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                self.loads.append(time.process_time() - since)
                model: LoadedModel = done.value
                return model

    def _unload(self, model: LoadedModel) -> None:
        assert isinstance(model, Hibernating)
        since = time.process_time()
        model.hibernate()
        self.saves.append(time.process_time() - since)
        model.close()

    def _turn(self, model: LoadedModel, conversation: list[int]) -> tuple[float, int]:
        """Asks, and appends the answer. Returns: seconds to the first token, tokens not read."""
        since = time.process_time()
        stop = StopParams(max_tokens=_ANSWER_TOKENS, ignore_eos=True)
        greedy = SamplingParams(temperature=0)
        model.submit(Task(next(_IDS), "i", Prompt(), greedy, stop), list(conversation))
        first, cached, answer = 0.0, 0, list[int]()
        while model.has_work:
            for event in model.step():
                if isinstance(event, Started):
                    cached = event.cached_tokens
                elif isinstance(event, Delta):
                    first = first or time.process_time() - since
                    answer += event.token_ids
        conversation += answer
        return first, cached


def main() -> None:
    """Measures both ways and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.hibernation", description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--tokens", type=int, default=4000, help="of each conversation")
    parser.add_argument("--conversations", type=int, default=4)
    parser.add_argument("--swaps", type=int, default=8)
    parser.add_argument("--emulated", action="store_true", help="ExLlamaV2 without a GPU")
    asked = parser.parse_args()
    if asked.emulated:
        from tests.engines.exllamav2 import emulation

        emulation.install()
    print("               load   save   first token (median, worst)   tokens not read")
    _tell("none saved", asked, None)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        tier = KvTier(folder, 4 << 30)
        _tell("saved", asked, KvStorePlan((tier,), "bench"))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        key = pathlib.Path(folder, "key")
        make_key(key)
        tier = KvTier(folder, 4 << 30)
        _tell("encrypted", asked, KvStorePlan((tier,), "bench", key_file=str(key)))


def _engine_of(model: str) -> str:
    return "exllamav2" if pathlib.Path(model).is_dir() else "llamacpp"


def _tell(name: str, asked: argparse.Namespace, store: KvStorePlan | None) -> None:
    swaps = Swaps(asked, store)
    swaps.run()
    firsts = swaps.first_tokens
    print(
        f"{name:12}  {statistics.median(swaps.loads):5.2f}  {statistics.median(swaps.saves):5.2f}"
        f"   {statistics.median(firsts):6.2f}, {max(firsts):6.2f} s"
        f"{min(swaps.cached):23} of {asked.tokens} and more"
    )


def _text(length: int, seed: int) -> list[int]:
    return [100 + (seed * 7919 + place * 31 + place * place * 7) % 4000 for place in range(length)]


if __name__ == "__main__":
    main()

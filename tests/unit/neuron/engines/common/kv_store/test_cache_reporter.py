"""What a cache tells of itself, with real llama.cpp contexts of every kind."""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from services.neuron.engine_api.cache import HeldPrefix, ReportsCache
from services.neuron.engine_api.engine import Hibernating, LoadedModel
from services.neuron.engine_api.events import Ended, Event
from services.neuron.engine_api.model import KvStorePlan, KvTier
from services.neuron.engine_api.task import Prompt, PromptMarks, SamplingParams, StopParams, Task
from services.neuron.engines.common.kv_store.cache_reporter import LOOK_SECONDS
from tests.doubles import random_hybrid, random_llama
from tests.unit.neuron.engines.llamacpp.conftest import LoadModel, engine, library, load

__all__ = ["engine", "library", "load"]

KINDS: dict[str, Callable[[Path], Path]] = {
    "full": random_llama.build,
    "hybrid": random_hybrid.build_hybrid,
    "recurrent": random_hybrid.build_recurrent,
    "windowed": random_hybrid.build_windowed,
}
Fresh = Callable[[], LoadedModel]
IDS = itertools.count(1)
CLOCK = itertools.count(0, 10 * LOOK_SECONDS)


@pytest.fixture(params=KINDS)
def fresh(request: pytest.FixtureRequest, load: LoadModel, tmp_path: Path) -> Fresh:
    path = KINDS[request.param](tmp_path / "model.gguf")
    (tmp_path / "kv").mkdir()
    plan = KvStorePlan((KvTier(str(tmp_path / "kv"), 64 << 20),), "f", keeps_named=True)
    return lambda: load(path, max_sequences=2, max_context_tokens=1024, kv_store=plan)


def name(principal: str, ids: list[int]) -> bytes:
    return hashlib.blake2b(f"{principal}\0{ids}".encode(), digest_size=16).digest()


def run(model: LoadedModel, ids: list[int], principal: str = "ann") -> None:
    sampling, stop = SamplingParams(temperature=0), StopParams(max_tokens=3, ignore_eos=True)
    marks = PromptMarks(whole=name(principal, ids))
    task = Task(next(IDS), "i", Prompt(), sampling, stop, principal=principal, marks=marks)
    model.submit(task, ids)
    events: list[Event] = []
    while not any(isinstance(event, Ended) for event in events):
        events += model.step()


def follow(model: LoadedModel, told: dict[bytes, HeldPrefix]) -> None:
    """Takes in the news, as a gateway does."""
    assert isinstance(model, ReportsCache)
    news = model.cache_changes(next(CLOCK))
    if news is not None:
        for digest in news.dropped:
            del told[digest]
        told.update({one.digest: one for one in news.held})


def text(length: int, seed: int) -> list[int]:
    return [3 + (i * 37 + seed * 91) % 256 for i in range(length)]


def test_a_prompt_that_was_read_is_told_and_one_that_is_overwritten_is_not(fresh: Fresh) -> None:
    model, told = fresh(), dict[bytes, HeldPrefix]()
    run(model, text(300, 1))
    follow(model, told)

    assert told[name("ann", text(300, 1))].tokens > 0
    for seed in (2, 3):  # both slots
        run(model, text(300, seed))
    follow(model, told)

    assert name("ann", text(300, 1)) not in told


def test_what_is_saved_is_told_by_the_next_load_with_the_time_it_takes(fresh: Fresh) -> None:
    first = fresh()
    run(first, text(400, 1))
    assert isinstance(first, Hibernating)
    first.hibernate()
    told: dict[bytes, HeldPrefix] = {}

    second = fresh()
    follow(second, told)

    one = told[name("ann", text(400, 1))]
    assert one.tokens > 0
    assert one.restore_seconds > 0
    run(second, [*text(400, 1), 7])
    follow(second, told)
    assert told[name("ann", text(400, 1))].restore_seconds == 0


def test_no_news_is_no_message(fresh: Fresh) -> None:
    model = fresh()
    run(model, text(300, 1))
    follow(model, {})

    assert isinstance(model, ReportsCache)
    assert model.cache_changes(next(CLOCK)) is None


@pytest.mark.parametrize("seed", range(3))
def test_all_that_is_told_is_held_and_for_nobody_else(fresh: Fresh, seed: int) -> None:
    """Whatever runs: a prompt that goes on from a told beginning need not read so much of it."""
    dice = random.Random(seed)
    model, told = fresh(), dict[bytes, HeldPrefix]()
    assert isinstance(model, ReportsCache)
    prompts: dict[bytes, tuple[str, list[int]]] = {}
    for _ in range(12):
        principal = dice.choice(["ann", "bob", ""])
        ids = text(dice.randint(150, 400), dice.randint(0, 2))
        if prompts and dice.random() < 0.4:  # a turn more of what somebody has asked
            _, before = dice.choice(list(prompts.values()))
            ids = [*before, *text(dice.randint(1, 60), 9)]
        prompts[name(principal, ids)] = principal, ids
        run(model, ids, principal)
        follow(model, told)
        for digest, one in told.items():
            owner, known = prompts[digest]
            assert model.compare([*known, 5], owner).cached_tokens >= one.tokens
            for other in {"ann", "bob", "", "eve"} - {owner}:
                assert name(other, known) not in told or (other, known) in prompts.values()
        assert model.compare([*ids, 5], "eve").cached_tokens == 0
        assert model.compare([*ids, 5], "eve").held == ""

"""What a cache keeps: over the life of its model, told to others, and while others have its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from services.neuron.engine_api.cache import ReportsCache
from services.neuron.engine_api.engine import Hibernating, LoadedModel
from services.neuron.engine_api.events import Ended
from services.neuron.engine_api.model import KvStorePlan, KvTier
from services.neuron.engine_api.task import Prompt, PromptMarks, StopParams, Task, WorkClass
from tests.contract.engine.driving import Driver, run, started, step_until, submit, text, tokens
from tests.doubles.scripted import Script

ENDLESS = Script(words=[f" w{i}" for i in range(16)], is_endless=True)
PROMPT = tuple(40 + (place * 7 + place * place) % 80 for place in range(700))


@pytest.fixture
def stored(tmp_path: Path) -> dict[str, Any]:
    """Fields of loads whose caches are saved, of callers with a name too."""
    (tmp_path / "kv").mkdir()
    tiers = (KvTier(str(tmp_path / "kv"), 64 << 20),)
    return {"kv_store": KvStorePlan(tiers, "f", keeps_named=True), "max_sequences": 2}


def asked(driver: Driver, principal: str = "", *, name: bytes = b"", **fields: Any) -> Task:
    fields = {"stop": StopParams(max_tokens=24, ignore_eos=True), **fields}
    marks = PromptMarks(whole=name) if name else None
    return driver.task(Prompt(token_ids=PROMPT), principal=principal, marks=marks, **fields)


def gone(model: LoadedModel) -> None:
    assert isinstance(model, Hibernating)
    assert model.hibernate()[0] > 0


def test_a_cache_outlives_its_model(driver: Driver, stored: dict[str, Any]) -> None:
    first = driver.load(ENDLESS, **stored)
    said = text(run(first, asked(driver)))
    gone(first)

    events = run(driver.load(ENDLESS, **stored), asked(driver))

    assert started(events).cached_tokens >= len(PROMPT) - 2
    assert text(events) == said


def test_a_saved_cache_is_its_principals_alone(driver: Driver, stored: dict[str, Any]) -> None:
    first = driver.load(ENDLESS, **stored)
    run(first, asked(driver, "ann"))
    gone(first)
    second = driver.load(ENDLESS, **stored)

    assert started(run(second, asked(driver, "bob"))).cached_tokens == 0
    assert started(run(second, asked(driver, "ann"))).cached_tokens >= len(PROMPT) - 2


def test_a_stream_goes_on_from_what_its_worker_saved(
    driver: Driver, stored: dict[str, Any]
) -> None:
    whole = tokens(run(driver.load(ENDLESS), asked(driver)))
    first = driver.load(ENDLESS, **stored)
    submit(first, asked(driver))
    made = tokens(step_until(first, lambda events: len(tokens(events)) >= 9))
    gone(first)

    events = run(driver.load(ENDLESS, **stored), asked(driver, resume_token_ids=tuple(made)))

    assert started(events).cached_tokens >= len(PROMPT) - 2
    assert [*made, *tokens(events)] == whole


def test_what_a_cache_holds_is_told(driver: Driver, stored: dict[str, Any]) -> None:
    first = driver.load(ENDLESS, **stored)
    assert isinstance(first, ReportsCache)
    run(first, asked(driver, "ann", name=b"the prompt"))
    news = first.cache_changes(1e6)
    assert news is not None
    (one,) = news.held
    assert (one.digest, one.restore_seconds) == (b"the prompt", 0)
    assert one.tokens >= len(PROMPT) - 1
    gone(first)

    second = driver.load(ENDLESS, **stored)
    assert isinstance(second, ReportsCache)
    saved = second.cache_changes(1e6)

    assert saved is not None
    assert [(one.digest, one.restore_seconds > 0) for one in saved.held] == [(b"the prompt", True)]


def test_a_batch_stream_gives_its_place_and_goes_on(driver: Driver) -> None:
    model = driver.load(ENDLESS, max_sequences=1)
    long = StopParams(max_tokens=60, ignore_eos=True)
    whole = tokens(run(model, asked(driver, stop=long)))
    batch = asked(driver, stop=long, work_class=WorkClass.BATCH)
    submit(model, batch)
    events = step_until(model, lambda events: len(tokens(events)) >= 20)

    urgent = driver.task("Hi\n", stop=StopParams(max_tokens=5), work_class=WorkClass.INTERACTIVE)
    events += run(model, urgent)
    assert batch.task_id not in {event.task_id for event in events if isinstance(event, Ended)}
    events += step_until(model, lambda events: any(isinstance(one, Ended) for one in events))

    assert tokens(events, batch) == whole

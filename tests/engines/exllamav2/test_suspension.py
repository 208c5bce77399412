"""Streams that give their place, or their pages, to others and go on with the same tokens."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from services.neuron.engine_api.events import Delta, Ended, Event, Failed, Prefilled
from services.neuron.engine_api.task import Prompt, SamplingParams, StopParams, Task, WorkClass
from services.neuron.engines.common import yielding
from services.neuron.engines.common.admission import MOST_PASSED
from services.neuron.engines.exllamav2.batch.loop import Loop

IDS = itertools.count(1)
GREEDY, SEEDED = SamplingParams(temperature=0), SamplingParams(temperature=1.0, seed=11)
BATCH, URGENT = WorkClass.BATCH, WorkClass.INTERACTIVE
MOST_STEPS = 3_000


def text(length: int, seed: int) -> list[int]:
    return [3 + (i * 37 + seed * 91 + i * i // 7) % 240 for i in range(length)]


def submit(
    model: Any, work_class: WorkClass, ids: list[int], *, tokens: int = 60, **more: Any
) -> int:
    stop = StopParams(max_tokens=tokens, ignore_eos=True)
    more = {"sampling": GREEDY, **more}
    one = Task(next(IDS), "i", Prompt(), stop=stop, work_class=work_class, **more)
    model.submit(one, ids)
    return one.task_id


def run(model: Any, until: int | None = None) -> list[Event]:
    """Steps until a task has ended, or until nothing is left to do."""
    events: list[Event] = []
    for _ in range(MOST_STEPS):
        if not model.has_work or until in ended(events):
            return events
        events += model.step()
    raise AssertionError(f"still at work; last events: {events[-3:]}")


def made(events: list[Event], task_id: int) -> list[int]:
    found = [e for e in events if isinstance(e, Delta) and e.task_id == task_id]
    return [token for delta in found for token in delta.token_ids]


def ended(events: list[Event]) -> list[int]:
    return [e.task_id for e in events if isinstance(e, Ended)]


def until_made(model: Any, task_id: int, count: int) -> list[Event]:
    events: list[Event] = []
    while len(made(events, task_id)) < count:
        events += model.step()
    return events


@pytest.fixture
def model(loaded: Any) -> Any:
    return loaded(max_sequences=1, max_context_tokens=1024, cache_tokens=4096)


@pytest.mark.parametrize("sampling", [GREEDY, SEEDED], ids=["greedy", "seeded"])
@pytest.mark.parametrize("length", [60, 250, 600])
def test_a_suspended_stream_goes_on_with_the_same_tokens(
    model: Any, sampling: SamplingParams, length: int
) -> None:
    alone = submit(model, BATCH, text(length, 1), sampling=sampling)
    expected = made(run(model), alone)
    batch = submit(model, BATCH, text(length, 1), sampling=sampling)
    events = until_made(model, batch, 25)

    urgent = submit(model, URGENT, text(40, 2))
    events += run(model)

    assert ended(events) == [urgent, batch]
    assert made(events, batch) == expected
    assert model.stats().cache_tokens_used == 0


def test_a_constraint_and_penalties_go_on_too(model: Any) -> None:
    sampling = SamplingParams(temperature=0, frequency_penalty=0.5, repetition_penalty=1.1)
    alone = submit(model, BATCH, text(60, 1), sampling=sampling, top_logprobs=1)
    expected = made(run(model), alone)
    batch = submit(model, BATCH, text(60, 1), sampling=sampling, top_logprobs=1)
    events = until_made(model, batch, 25)

    submit(model, URGENT, text(40, 2))

    assert made([*events, *run(model)], batch) == expected


def test_its_pages_are_kept_and_no_prompt_is_read_twice(model: Any) -> None:
    batch = submit(model, BATCH, text(600, 1))
    until_made(model, batch, 10)
    job = model._streams[batch].job

    submit(model, URGENT, text(40, 2))
    model.step()

    assert model._streams[batch].job is job
    assert model.stats().cache_tokens_used > 512
    run(model)


def test_where_pages_are_wanted_a_suspended_stream_gives_up_its_own(loaded: Any) -> None:
    model = loaded(max_sequences=1, max_context_tokens=1024, cache_tokens=1024)
    alone = submit(model, BATCH, text(600, 1))
    expected = made(run(model), alone)
    batch = submit(model, BATCH, text(600, 1))
    events = until_made(model, batch, 10)

    urgent = submit(model, URGENT, text(900, 2), tokens=20)
    events += run(model)

    assert ended(events) == [urgent, batch]
    assert made(events, batch) == expected


def test_a_stream_yields_its_pages_too_where_places_are_free(loaded: Any) -> None:
    model = loaded(max_sequences=4, max_context_tokens=1024, cache_tokens=1024)
    alone = submit(model, BATCH, text(600, 1))
    expected = made(run(model), alone)
    batch = submit(model, BATCH, text(600, 1))
    events = until_made(model, batch, 10)

    urgent = submit(model, URGENT, text(900, 2), tokens=20)
    events += run(model)

    assert ended(events) == [urgent, batch]
    assert made(events, batch) == expected


def test_a_suspended_stream_is_passed_by_a_bounded_number(model: Any) -> None:
    batch = submit(model, BATCH, text(60, 1), tokens=18 + yielding.LEAST_TOKENS)
    events = until_made(model, batch, 18)

    for seed in range(2 * MOST_PASSED):
        submit(model, URGENT, text(40, 10 + seed), tokens=3)
    events += run(model)

    assert ended(events).index(batch) == MOST_PASSED


def test_others_of_its_class_suspend_nothing(model: Any) -> None:
    first = submit(model, BATCH, text(60, 1))
    events = until_made(model, first, 20)

    second = submit(model, BATCH, text(40, 2))

    assert ended([*events, *run(model)]) == [first, second]


def test_a_suspended_stream_can_be_cancelled(model: Any) -> None:
    batch = submit(model, BATCH, text(60, 1))
    until_made(model, batch, 20)
    urgent = submit(model, URGENT, text(40, 2))
    model.step()
    assert (model.stats().active, model.stats().queued) == (1, 1)

    model.cancel(batch)

    assert ended(run(model)) == [urgent]
    assert (model.stats().active, model.stats().queued) == (0, 0)
    assert model.stats().cache_tokens_used == 0


def test_credit_reaches_a_suspended_stream(model: Any) -> None:
    batch = submit(model, BATCH, text(60, 1), tokens=30, credit_tokens=20)
    events = until_made(model, batch, 20)
    assert not model.has_work
    urgent = submit(model, URGENT, text(40, 2))
    events += model.step()

    model.credit(batch, 100)
    events += run(model)

    assert ended(events) == [urgent, batch]
    assert len(made(events, batch)) == 30


def test_an_exception_leaves_suspended_streams_to_go_on(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = submit(model, BATCH, text(60, 1))
    expected = made(run(model), alone)
    batch = submit(model, BATCH, text(60, 1))
    events = until_made(model, batch, 20)
    urgent = submit(model, URGENT, text(40, 2))
    events += model.step()

    def broken() -> None:
        monkeypatch.undo()
        raise RuntimeError("once")

    monkeypatch.setattr(model._generator, "iterate", broken)
    events += run(model)

    assert ended(events) == [urgent, batch]
    assert made(events, batch) == expected
    assert not any(isinstance(event, Failed) for event in events)


def test_a_principal_with_all_places_gives_one_to_another(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yielding, "PATIENCE_SECONDS", 0.0)
    model: Loop = loaded(max_sequences=2, max_context_tokens=1024, cache_tokens=4096)
    alone = submit(model, URGENT, text(60, 1), principal="ann")
    expected = made(run(model), alone)
    own = [submit(model, URGENT, text(60, 1), principal="ann") for _ in range(3)]
    events = until_made(model, own[0], 20)

    other = submit(model, URGENT, text(40, 2), tokens=5, principal="bob")
    events += run(model)

    assert ended(events)[0] == other
    assert sorted(ended(events)) == [*own, other]
    assert all(made(events, one) == expected for one in own)


def test_a_prompt_that_is_being_read_is_suspended_too(loaded: Any) -> None:
    model = loaded(max_sequences=1, max_context_tokens=4096, cache_tokens=8192)
    alone = submit(model, BATCH, text(3000, 1), tokens=10)
    expected = made(run(model), alone)
    other = submit(model, URGENT, text(4000, 3), tokens=2)  # both do not fit
    run(model, until=other)
    batch = submit(model, BATCH, text(3000, 1), tokens=10, principal="ann")
    events = model.step()
    assert any(isinstance(event, Prefilled) for event in events)

    urgent = submit(model, URGENT, text(40, 2))
    events += run(model)

    assert ended(events) == [urgent, batch]
    assert made(events, batch) == expected

"""Streams that lose their place and get it back, over a model that sees its whole context."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.neuron.engine_api.engine import LoadedModel
from services.neuron.engine_api.events import Delta, Ended, Event, Failed, Prefilled
from services.neuron.engine_api.task import Prompt, SamplingParams, StopParams, Task, WorkClass
from services.neuron.engines.common import yielding
from services.neuron.engines.common.admission import MOST_PASSED
from tests.doubles import random_llama
from tests.unit.neuron.engines.llamacpp.conftest import LoadModel

PROMPT = [3 + (i * 37) % 256 for i in range(60)]
OTHER = [3 + (i * 53) % 256 for i in range(40)]
GREEDY, SEEDED = SamplingParams(temperature=0), SamplingParams(temperature=1.0, seed=11)
BATCH, URGENT = WorkClass.BATCH, WorkClass.INTERACTIVE


@pytest.fixture
def model(load: LoadModel, tmp_path: Path) -> LoadedModel:
    return load(random_llama.build(tmp_path / "r.gguf"), max_sequences=1, max_context_tokens=1024)


def submit(
    model: LoadedModel,
    task_id: int,
    kind: WorkClass,
    *,
    sampling: SamplingParams = GREEDY,
    tokens: int = 60,
    principal: str = "",
) -> None:
    stop = StopParams(max_tokens=tokens, ignore_eos=True)
    task = Task(task_id, "i", Prompt(), sampling, stop, principal=principal, work_class=kind)
    model.submit(task, PROMPT if kind is BATCH else OTHER)


def run(model: LoadedModel, until: int | None = None) -> list[Event]:
    """Steps until a task has ended, or until nothing is left to do."""
    events: list[Event] = []
    while model.has_work and until not in ended(events):
        events += model.step()
    return events


def made(events: list[Event], task_id: int) -> list[int]:
    found = [e for e in events if isinstance(e, Delta) and e.task_id == task_id]
    return [token for delta in found for token in delta.token_ids]


def ended(events: list[Event]) -> list[int]:
    return [e.task_id for e in events if isinstance(e, Ended)]


def step_until_made(model: LoadedModel, count: int) -> list[Event]:
    events: list[Event] = []
    while len(made(events, 1)) < count:
        events += model.step()
    return events


@pytest.mark.parametrize("sampling", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_a_suspended_stream_goes_on_with_the_same_tokens(
    model: LoadedModel, sampling: SamplingParams
) -> None:
    submit(model, 1, BATCH, sampling=sampling)
    alone = made(run(model), 1)
    submit(model, 1, BATCH, sampling=sampling)
    events = step_until_made(model, 25)

    submit(model, 2, URGENT)
    events += run(model)

    assert ended(events) == [2, 1]
    assert made(events, 1) == alone


def test_a_prompt_that_is_being_read_is_suspended_too(model: LoadedModel) -> None:
    long = [3 + (i * 41) % 256 for i in range(900)]
    stop = StopParams(max_tokens=20, ignore_eos=True)
    task = Task(1, "i", Prompt(), GREEDY, stop, work_class=BATCH)
    model.submit(task, long)
    alone = made(run(model), 1)
    submit(model, 3, URGENT)  # leaves nothing of the prompt in the cache
    run(model)
    model.submit(task, long)
    events = model.step()
    assert any(isinstance(event, Prefilled) for event in events)

    submit(model, 2, URGENT)
    events += run(model)

    assert ended(events) == [2, 1]
    assert made(events, 1) == alone


def test_a_suspended_stream_is_passed_by_a_bounded_number(model: LoadedModel) -> None:
    submit(model, 1, BATCH, tokens=18 + yielding.LEAST_TOKENS)
    events = step_until_made(model, 18)

    for number in range(2 * MOST_PASSED):
        submit(model, 10 + number, URGENT, tokens=3)
    events += run(model)

    assert ended(events).index(1) == MOST_PASSED


def test_others_of_its_class_suspend_nothing(model: LoadedModel) -> None:
    submit(model, 1, BATCH)
    events = step_until_made(model, 20)

    submit(model, 2, BATCH)

    assert ended([*events, *run(model)]) == [1, 2]


def test_a_suspended_stream_can_be_cancelled(model: LoadedModel) -> None:
    submit(model, 1, BATCH)
    step_until_made(model, 20)
    submit(model, 2, URGENT)
    model.step()
    assert (model.stats().active, model.stats().queued) == (1, 1)

    model.cancel(1)

    assert ended(run(model)) == [2]
    assert (model.stats().active, model.stats().queued) == (0, 0)
    assert not model.has_work


def test_credit_reaches_a_suspended_stream(model: LoadedModel) -> None:
    stop = StopParams(max_tokens=30, ignore_eos=True)
    task = Task(1, "i", Prompt(), GREEDY, stop, work_class=BATCH, credit_tokens=20)
    model.submit(task, PROMPT)
    events = step_until_made(model, 20)
    assert not model.has_work
    submit(model, 2, URGENT)
    events += model.step()

    model.credit(1, 100)
    events += run(model)

    assert ended(events) == [2, 1]
    assert len(made(events, 1)) == 30


def test_what_would_be_too_large_to_keep_is_not_suspended(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model._suspension, "_most_bytes", 10)  # type: ignore[attr-defined]
    submit(model, 1, BATCH)
    events = step_until_made(model, 20)

    submit(model, 2, URGENT)
    events += run(model)

    assert ended(events) == [1, 2]
    assert not any(isinstance(event, Failed) for event in events)


@pytest.fixture
def two_places(load: LoadModel, tmp_path: Path) -> LoadedModel:
    return load(random_llama.build(tmp_path / "r.gguf"), max_sequences=2, max_context_tokens=1024)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yielding, "PATIENCE_SECONDS", 0.0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("kind", [URGENT, WorkClass.DEFAULT])
def test_a_principal_with_all_places_gives_one_to_another(
    two_places: LoadedModel, kind: WorkClass
) -> None:
    model = two_places
    submit(model, 1, kind, principal="ann")
    alone = made(run(model), 1)
    for task_id in (1, 3, 4):
        submit(model, task_id, kind, principal="ann")
    events = step_until_made(model, 20)

    submit(model, 2, kind, tokens=5, principal="bob")
    events += run(model)

    assert ended(events)[0] == 2
    assert sorted(ended(events)) == [1, 2, 3, 4]
    assert made(events, 1) == made(events, 3) == alone


@pytest.mark.usefixtures("impatient")
def test_one_place_for_each_of_two_principals_is_left_as_it_is(two_places: LoadedModel) -> None:
    model = two_places
    submit(model, 1, URGENT, principal="ann")
    submit(model, 2, URGENT, principal="bob")
    events = step_until_made(model, 20)

    submit(model, 3, URGENT, principal="bob")
    submit(model, 4, URGENT, principal="cid")
    events += run(model)

    assert set(ended(events)[:2]) == {1, 2}


@pytest.mark.usefixtures("impatient")
def test_a_higher_class_of_a_heavy_principal_yields_to_no_lower_one(
    two_places: LoadedModel,
) -> None:
    model = two_places
    submit(model, 1, URGENT, principal="ann")
    submit(model, 3, URGENT, principal="ann")
    events = step_until_made(model, 20)

    submit(model, 2, WorkClass.DEFAULT, tokens=5, principal="bob")
    events += run(model)

    assert ended(events)[-1] == 2


def test_others_are_waited_for_a_moment_before_a_stream_yields(two_places: LoadedModel) -> None:
    model = two_places
    submit(model, 1, URGENT, principal="ann")
    submit(model, 3, URGENT, principal="ann")
    events = step_until_made(model, 20)

    submit(model, 2, URGENT, tokens=5, principal="bob")
    events += model.step()

    assert model.stats().queued == 1
    assert not made(events, 2)


@pytest.mark.usefixtures("impatient")
def test_who_has_no_place_for_long_gets_the_only_one_of_another(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(yielding, "LONG_SECONDS", 0.0)
    submit(model, 1, URGENT, principal="ann")
    events = step_until_made(model, 20)

    submit(model, 2, URGENT, tokens=5, principal="bob")
    events += run(model)

    assert ended(events) == [2, 1]


@pytest.mark.usefixtures("impatient")
def test_requests_of_one_principal_in_a_row_need_not_wait_for_another_s_turn(
    two_places: LoadedModel,
) -> None:
    """Of another that has both places, and more that wait."""
    model = two_places
    for task_id in (1, 3, 4, 5):
        submit(model, task_id, URGENT, tokens=200, principal="ann")
    events = step_until_made(model, 20)

    for task_id in (10, 11, 12):
        submit(model, task_id, URGENT, tokens=5, principal="bob")
        events += run(model, until=task_id)

    assert ended(events) == [10, 11, 12]
    assert sorted(ended([*events, *run(model)])) == [1, 3, 4, 5, 10, 11, 12]

"""Prefixes of models whose cache cannot be cut back: recurrent, hybrid, and with sliding windows."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.neuron.engine_api.engine import LoadedModel
from services.neuron.engine_api.events import Delta, Ended, Event, Started
from services.neuron.engine_api.task import Prompt, SamplingParams, StopParams, Task, WorkClass
from services.neuron.engines.llamacpp import engine
from services.neuron.engines.llamacpp.batch import checkpoints
from services.neuron.engines.llamacpp.batch.checkpoints import SPACING_TOKENS, Checkpoints, places
from services.neuron.engines.llamacpp.batch.slots import COPY_WORTH_TOKENS, CacheSlot
from tests.doubles import random_hybrid
from tests.doubles.vocabulary import TURN_END_ID, TURN_START_ID
from tests.unit.neuron.engines.llamacpp.conftest import LoadModel

STOP = StopParams(max_tokens=12, ignore_eos=True)
KINDS = [random_hybrid.build_hybrid, random_hybrid.build_recurrent, random_hybrid.build_windowed]
Fresh = Callable[[], LoadedModel]


@pytest.fixture(params=KINDS, ids=["hybrid", "recurrent", "windowed"])
def fresh(request: pytest.FixtureRequest, load: LoadModel, tmp_path: Path) -> Fresh:
    """Loads the same weights once more, with nothing in the cache."""
    path = request.param(tmp_path / "model.gguf")
    return lambda: load(path, max_sequences=2, max_context_tokens=1024)


def submit(
    model: LoadedModel, ids: list[int], task_id: int, work_class: WorkClass = WorkClass.DEFAULT
) -> None:
    sampling = SamplingParams(temperature=0)
    model.submit(Task(task_id, "i", Prompt(), sampling, STOP, work_class=work_class), ids)


def run(model: LoadedModel, ids: list[int], task_id: int = 1) -> list[Event]:
    submit(model, ids, task_id)
    events: list[Event] = []
    while not any(isinstance(e, Ended) and e.task_id == task_id for e in events):
        events += model.step()
    return events


def output(events: list[Event], task_id: int = 1) -> list[int]:
    said = [event for event in events if isinstance(event, Delta) and event.task_id == task_id]
    return [token for delta in said for token in delta.token_ids]


def cached(events: list[Event]) -> int:
    return next(event.cached_tokens for event in events if isinstance(event, Started))


def text(length: int, seed: int) -> list[int]:
    return [3 + (i * 37 + seed * 91) % 256 for i in range(length)]


def turn(length: int, seed: int) -> list[int]:
    return [TURN_START_ID, *text(length, seed), TURN_END_ID]


OPENING = [TURN_START_ID, *text(3, 7)]
FIRST = [*turn(80, 1), *turn(220, 2), *OPENING]


def test_a_second_turn_reads_the_new_message_alone(fresh: Fresh) -> None:
    model = fresh()
    answer = output(run(model, FIRST))
    second = [*FIRST, *answer, TURN_END_ID, *turn(12, 3), *OPENING]

    events = run(model, second)

    assert cached(events) >= 0.9 * len(second)
    assert output(events) == output(run(fresh(), second))


def test_a_second_turn_without_the_firsts_reasoning_goes_on_where_the_answer_began(
    fresh: Fresh,
) -> None:
    model = fresh()
    run(model, [*FIRST, *text(2, 9)])  # the header and a marker that opens the reasoning
    second = [*FIRST, *text(6, 4), TURN_END_ID, *turn(12, 3), *OPENING]

    events = run(model, second)

    assert cached(events) >= len(FIRST) - len(OPENING)
    assert cached(events) >= 0.9 * len(second)
    assert output(events) == output(run(fresh(), second))


def test_the_same_prompt_again_gives_the_same_answer(fresh: Fresh) -> None:
    model = fresh()
    plain = text(300, 5)
    cold = run(model, plain)

    warm = run(model, plain)

    assert cached(warm) == 299
    assert output(warm) == output(cold)


def test_another_chat_goes_on_behind_the_system_message_while_the_first_runs(fresh: Fresh) -> None:
    model = fresh()
    other = [*turn(80, 1), *turn(130, 6), *OPENING]
    submit(model, FIRST, task_id=1)
    events: list[Event] = []
    while not any(isinstance(event, Delta) for event in events):
        events += model.step()

    both = [*events, *run(model, other, task_id=2)]
    while model.has_work:
        both += model.step()

    assert cached([event for event in both if event.task_id == 2]) == len(turn(80, 1)) - 1
    assert output(both, 1) == output(run(fresh(), FIRST))
    assert output(both, 2) == output(run(fresh(), other, 2), 2)


def test_a_suspended_stream_comes_back_with_its_state(fresh: Fresh) -> None:
    model, events = fresh(), list[Event]()
    for task_id in (1, 2):
        submit(model, [*FIRST, task_id + 9], task_id, WorkClass.BATCH)
    while len([event for event in events if isinstance(event, Delta)]) < 4:
        events += model.step()

    events += run(model, text(50, 8), task_id=3)
    while model.has_work:
        events += model.step()

    for task_id in (1, 2):
        assert output(events, task_id) == output(run(fresh(), [*FIRST, task_id + 9]))


def test_states_never_take_more_than_their_bound(
    fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = list[int]()
    take = Checkpoints.take

    def noted(kept: Checkpoints, slot: CacheSlot) -> None:
        take(kept, slot)
        held.append(kept.held_bytes)

    monkeypatch.setattr(Checkpoints, "take", noted)
    monkeypatch.setattr(checkpoints, "SPACING_TOKENS", 64)
    long = [*(token for at in range(8) for token in turn(80, at)), *OPENING]
    run(fresh(), long)
    most = max(held) // 3
    monkeypatch.setattr(engine, "MOST_BYTES", most)
    held.clear()

    model = fresh()
    run(model, long)

    assert len(held) > 6
    assert 0 < max(held) <= most
    again = run(model, [*long[:-2], *text(5, 1)])  # the last one is kept longest
    assert cached(again) >= len(long) - len(OPENING)


PROMPTS = st.lists(st.sampled_from([0, 5, 6, 7, 8, 9]), max_size=200)


@given(PROMPTS, st.integers(0, 200), st.integers(1, 40))
def test_states_are_kept_within_the_prompt_and_before_control_tokens(
    prompt: list[int], after: int, repeat: int
) -> None:
    long = [token for token in prompt for _ in range(repeat if token else 1)]

    found = places(long, {0}, after=after)

    assert found == sorted(set(found))
    assert all(max(after, COPY_WORTH_TOKENS - 1) < at < len(long) for at in found)
    last = max((at for at, token in enumerate(long) if token == 0), default=0)
    if last >= max(COPY_WORTH_TOKENS, after + 1):
        assert found[-1] == last


def test_a_long_message_has_states_within_it() -> None:
    found = places([5] * 10_000, {0}, after=0)

    gaps = [right - left for left, right in zip([0, *found], found, strict=False)]
    assert max(gaps) <= 2 * SPACING_TOKENS
    assert len(found) <= 11


def test_a_short_prompt_is_read_again() -> None:
    assert places([0, 5, 5, 0, 5], {0}, after=0) == []

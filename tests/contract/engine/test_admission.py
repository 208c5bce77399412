"""Who may run, who waits, who is refused, and who is forgotten."""

import time

import pytest

from services.neuron.engine_api.events import (
    Delta,
    Ended,
    Event,
    Failed,
    Prefilled,
    Queued,
    Started,
)
from services.neuron.engine_api.task import Prompt, SamplingParams, Segment, StopParams, WorkClass
from services.neuron.engines.common import task_queue
from tests.contract.engine.driving import (
    Driver,
    deltas,
    ended,
    ends,
    failed,
    run,
    step_until,
    submit,
    text,
    tokens,
)
from tests.doubles.scripted import Script

ENDLESS = Script(words=[f" w{i}" for i in range(16)], is_endless=True)
LONG = "a long story about a very long road. " * 40 + "\n"


def test_a_prompt_that_cannot_fit_is_refused_with_numbers(driver: Driver) -> None:
    model = driver.load(max_context_tokens=256)
    task = driver.task("x" * 300)

    event = failed(run(model, task))

    assert event.reason == "CONTEXT_TOO_LONG"
    assert event.facts["max_context_tokens"] == "256"
    assert event.facts["prompt_tokens"] == str(len(model.tokenize(task.prompt)))


@pytest.mark.parametrize(
    "text",
    [
        "the road goes on " * 20_000,
        "x" * 300_000,
        "日本語" * 50_000,
        "short",
        "<|im_end|>" * 30_000,
    ],
)
def test_what_a_prompt_has_at_least_is_never_more_than_it_has(driver: Driver, text: str) -> None:
    model = driver.load()
    prompt = Prompt((Segment("<|im_start|>", control=True), Segment(text)))

    least = list(model.min_token_counts(prompt))

    assert least == sorted(least)
    exact = len(model.tokenize(prompt))
    assert 0.99 * exact <= least[-1] <= exact
    # The first comes without counting, which is enough to refuse what is far too long.
    assert least[0] * 20 > exact


def test_token_ids_are_their_own_measure(driver: Driver) -> None:
    assert list(driver.load().min_token_counts(Prompt(token_ids=(5, 6, 7)))) == [3]


def test_a_prompt_that_leaves_one_token_runs(driver: Driver) -> None:
    model = driver.load(max_context_tokens=256)

    events = run(model, driver.task("x" * 254 + "\n"))

    assert ended(events).completion_tokens == 1


def test_an_empty_prompt_is_refused(driver: Driver) -> None:
    model = driver.load()

    assert failed(run(model, driver.task(""))).reason == "BAD_REQUEST"


def test_an_unknown_token_in_a_bias_is_refused(driver: Driver) -> None:
    model = driver.load()
    sampling = SamplingParams(logit_bias={100_000: 1.0})

    event = failed(run(model, driver.task(sampling=sampling)))

    assert event.reason == "BAD_REQUEST"
    assert "100000" in event.message


def test_an_unknown_prompt_token_is_refused(driver: Driver) -> None:
    from services.backplane.errors import FleetError

    model = driver.load()

    with pytest.raises(FleetError, match="not in the vocabulary"):
        model.tokenize(Prompt(token_ids=(1, 100_000)))


def test_images_are_refused_by_a_model_without_eyes(driver: Driver) -> None:
    model = driver.load()

    assert failed(run(model, driver.task(images=(b"png",)))).reason == "WRONG_MODALITY"


def test_waiting_tasks_hear_their_place(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_queue, "_TELL_SECONDS", 0.0)
    model = driver.load(ENDLESS, max_sequences=1)
    tasks = [driver.task(stop=StopParams(max_tokens=5)) for _ in range(3)]

    events = run(model, *tasks)

    second = [e.position for e in events if isinstance(e, Queued) and e.task_id == tasks[2].task_id]
    assert second[0] == 1
    assert second[-1] == 0


def test_a_full_queue_refuses(driver: Driver) -> None:
    model = driver.load(ENDLESS, max_sequences=1, max_queued=2)
    running, *others = [driver.task(stop=StopParams(max_tokens=5)) for _ in range(4)]
    submit(model, running)
    model.step()

    submit(model, *others)
    events = model.step()

    assert failed(events).task_id == others[2].task_id
    assert failed(events).reason == "QUEUE_FULL"


def test_a_wait_that_is_too_long_ends(driver: Driver) -> None:
    model = driver.load(ENDLESS, max_sequences=1, queue_timeout_seconds=0.05)
    submit(model, driver.task(credit_tokens=0))
    model.step()
    late = driver.task()
    submit(model, late)
    deadline = time.monotonic() + 10

    events: list[Event] = []
    while not ends(events) and time.monotonic() < deadline:
        events += model.step()

    assert failed(events).task_id == late.task_id
    assert failed(events).reason == "QUEUE_TIMEOUT"


def test_principals_take_turns(driver: Driver) -> None:
    model = driver.load(max_sequences=1)
    greedy = [driver.task(principal="greedy") for _ in range(4)]
    modest = driver.task(principal="modest")

    events = run(model, *greedy, modest)

    order = [e.task_id for e in events if isinstance(e, Ended)]
    assert order.index(modest.task_id) <= 1


def test_interactive_work_goes_before_batch_work(driver: Driver) -> None:
    model = driver.load(max_sequences=1)
    batch = [driver.task(work_class=WorkClass.BATCH) for _ in range(3)]
    urgent = driver.task()
    submit(model, *batch, urgent)

    events = step_until(model, lambda events: len(ends(events)) == 4)

    assert ends(events)[0].task_id == urgent.task_id


def starts(events: list[Event]) -> list[Started]:
    return [event for event in events if isinstance(event, Started)]


def test_batch_work_leaves_a_place_to_others(driver: Driver) -> None:
    model = driver.load(ENDLESS, max_sequences=2)
    batch = [driver.task(work_class=WorkClass.BATCH) for _ in range(2)]
    submit(model, *batch)
    step_until(model, lambda events: len(deltas(events)) >= 3)
    assert model.stats().active == 1
    urgent = driver.task(work_class=WorkClass.INTERACTIVE)

    submit(model, urgent)
    events = step_until(model, lambda events: len(starts(events)) == 1)

    assert starts(events)[0].task_id == urgent.task_id
    model.cancel(batch[0].task_id)
    events = step_until(model, lambda events: len(starts(events)) == 1)
    assert starts(events)[0].task_id == batch[1].task_id


def test_a_cancelled_decode_is_silent_and_frees_its_place(driver: Driver) -> None:
    model = driver.load(ENDLESS, max_sequences=1)
    task = driver.task()
    submit(model, task)
    step_until(model, lambda events: len(deltas(events)) >= 3)

    model.cancel(task.task_id)

    assert model.stats().active == 0
    assert not model.has_work
    assert model.step() == []
    assert text(run(model, driver.task(stop=StopParams(max_tokens=2)))) == " w0 w1"


def test_a_cancelled_prefill_is_silent_and_frees_its_place(driver: Driver) -> None:
    model = driver.load(max_sequences=1, max_context_tokens=4096)
    task = driver.task(LONG)
    submit(model, task)
    step_until(model, lambda events: any(isinstance(e, Prefilled) for e in events))

    model.cancel(task.task_id)

    assert model.stats().active == 0
    assert not any(e.task_id == task.task_id for e in run(model, driver.task()))


def test_a_cancelled_waiter_frees_its_place_in_the_queue(driver: Driver) -> None:
    model = driver.load(ENDLESS, max_sequences=1, max_queued=1)
    submit(model, driver.task(stop=StopParams(max_tokens=200)))
    model.step()

    for _ in range(20):
        waiting = driver.task()
        submit(model, waiting)
        assert not any(isinstance(event, Failed) for event in model.step())
        model.cancel(waiting.task_id)

    assert model.stats().queued == 0


def test_a_cancel_before_the_first_step_leaves_no_word(driver: Driver) -> None:
    model = driver.load()
    task = driver.task()
    submit(model, task)

    model.cancel(task.task_id)

    assert not any(event.task_id == task.task_id for event in model.step())


def test_an_unknown_cancel_is_ignored(driver: Driver) -> None:
    model = driver.load()

    model.cancel(99)
    model.credit(99, 5)

    assert text(run(model, driver.task())) == "Hello from model bravo"


def test_a_task_without_credit_waits_and_others_go_on(driver: Driver) -> None:
    model = driver.load(ENDLESS, max_sequences=2)
    stalled = driver.task(stop=StopParams(max_tokens=6), credit_tokens=2)
    free = driver.task(stop=StopParams(max_tokens=30))
    submit(model, stalled, free)

    events = step_until(model, lambda events: bool(ends(events)))

    assert ended(events).task_id == free.task_id
    assert len(tokens(events, stalled)) == 2
    assert not model.has_work

    model.credit(stalled.task_id, 2)
    events += step_until(model, lambda events: len(tokens(events)) == 2)
    assert not model.has_work
    model.credit(stalled.task_id, 100)
    events += step_until(model, lambda events: bool(ends(events)))

    assert text(events, stalled) == " w0 w1 w2 w3 w4 w5"


def test_credit_that_comes_while_a_task_waits_counts(driver: Driver) -> None:
    model = driver.load(ENDLESS, max_sequences=1)
    first = driver.task(stop=StopParams(max_tokens=20))
    late = driver.task(stop=StopParams(max_tokens=3), credit_tokens=1)
    submit(model, first, late)
    model.step()

    model.credit(late.task_id, 2)
    events = step_until(model, lambda events: len(ends(events)) == 2)

    assert text(events, late) == " w0 w1 w2"


def test_a_long_prompt_does_not_stop_the_others(driver: Driver) -> None:
    model = driver.load(ENDLESS, max_sequences=2, max_context_tokens=4096)
    talking = driver.task(stop=StopParams(max_tokens=500))
    submit(model, talking)
    step_until(model, lambda events: bool(deltas(events)))
    submit(model, driver.task(LONG, stop=StopParams(max_tokens=1)))

    events = step_until(model, lambda events: bool(ends(events)))

    prefills = [e for e in events if isinstance(e, Prefilled)]
    before_its_end = events[: events.index(prefills[-1])]
    assert len(prefills) > 1
    assert any(isinstance(e, Delta) and e.task_id == talking.task_id for e in before_its_end)


def test_stats_tell_how_busy_it_is(driver: Driver) -> None:
    model = driver.load(ENDLESS, max_sequences=2)
    submit(model, *[driver.task() for _ in range(3)])
    model.step()

    stats = model.stats()

    assert (stats.active, stats.queued) == (2, 1)
    assert stats.cache_tokens_used > 0

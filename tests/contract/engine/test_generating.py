"""What every engine says, token by token."""

import pytest

from services.neuron.engine_api.events import EndReason, Started
from services.neuron.engine_api.task import Prompt, SamplingParams, Segment, StopParams
from tests.contract.engine.driving import (
    GREEDY,
    Driver,
    deltas,
    ended,
    ends,
    run,
    started,
    step_until,
    submit,
    text,
    tokens,
)
from tests.doubles.scripted import Script

ENDLESS = Script(words=[f" w{i}" for i in range(16)], is_endless=True)
HOT = SamplingParams(temperature=3.0)


def test_a_turn_is_said_and_ends(driver: Driver) -> None:
    model = driver.load()

    events = run(model, driver.task())

    assert text(events) == "Hello from model bravo"
    assert ended(events).reason is EndReason.END_OF_TURN


def test_the_end_token_is_neither_sent_nor_counted(driver: Driver) -> None:
    model = driver.load()

    events = run(model, driver.task())

    assert ended(events).completion_tokens == len(tokens(events)) == 4
    assert not set(tokens(events)) & set(model.info.eos_token_ids)


def test_events_come_in_order(driver: Driver) -> None:
    model = driver.load()

    events = run(model, driver.task())

    kinds = [type(event).__name__ for event in events]
    assert kinds == ["Started", "Delta", "Delta", "Delta", "Delta", "Ended"]


def test_prompt_tokens_are_counted(driver: Driver) -> None:
    model = driver.load()
    task = driver.task()

    events = run(model, task)

    assert started(events).prompt_tokens == len(model.tokenize(task.prompt))


def test_max_tokens_ends_the_output(driver: Driver) -> None:
    model = driver.load(ENDLESS)

    events = run(model, driver.task(stop=StopParams(max_tokens=3)))

    assert text(events) == " w0 w1 w2"
    assert ended(events).reason is EndReason.MAX_TOKENS
    assert ended(events).completion_tokens == 3


def test_without_max_tokens_the_context_is_the_limit(driver: Driver) -> None:
    model = driver.load(ENDLESS, max_context_tokens=256)

    events = run(model, driver.task())

    assert ended(events).reason is EndReason.MAX_TOKENS
    assert started(events).prompt_tokens + ended(events).completion_tokens == 256


def test_max_tokens_beyond_the_context_is_clamped(driver: Driver) -> None:
    model = driver.load(ENDLESS, max_context_tokens=256)

    events = run(model, driver.task(stop=StopParams(max_tokens=10_000)))

    assert started(events).prompt_tokens + ended(events).completion_tokens == 256


def test_zero_max_tokens_reads_the_prompt_alone(driver: Driver) -> None:
    model = driver.load()

    events = run(model, driver.task(stop=StopParams(max_tokens=0)))

    assert text(events) == ""
    assert ended(events).completion_tokens == 0


def test_more_tasks_than_places_all_finish(driver: Driver) -> None:
    model = driver.load(max_sequences=4)
    tasks = [driver.task(f"number {i}\n") for i in range(13)]

    events = run(model, *tasks)

    assert {text(events, task) for task in tasks} == {"Hello from model bravo"}
    assert len(ends(events)) == 13


def test_tasks_run_together(driver: Driver) -> None:
    model = driver.load(ENDLESS, max_sequences=4)
    tasks = [driver.task(stop=StopParams(max_tokens=40)) for _ in range(4)]
    before = model.stats().steps

    run(model, *tasks)

    assert model.stats().steps - before < 2 * 40


def test_a_batch_says_what_each_says_alone(driver: Driver) -> None:
    model = driver.load(ENDLESS, max_sequences=4)
    lengths = (3, 17, 30, 9)
    alone = [
        tokens(run(model, driver.task(f"{n}\n", stop=StopParams(max_tokens=n)))) for n in lengths
    ]
    together = [driver.task(f"{n}\n", stop=StopParams(max_tokens=n)) for n in lengths]

    events = run(model, *together)

    assert alone == [tokens(events, task) for task in together]


def test_a_seed_repeats_the_output(driver: Driver) -> None:
    model = driver.load()
    hot = SamplingParams(temperature=3.0, seed=7)
    stop = StopParams(max_tokens=24, ignore_eos=True)

    first = tokens(run(model, driver.task(sampling=hot, stop=stop)))
    second = tokens(run(model, driver.task(sampling=hot, stop=stop)))

    assert first == second


def test_other_seeds_give_other_outputs(driver: Driver) -> None:
    model = driver.load()
    stop = StopParams(max_tokens=24, ignore_eos=True)

    outputs = {
        tuple(tokens(run(model, driver.task(sampling=sampling, stop=stop))))
        for sampling in (*[SamplingParams(temperature=3.0, seed=s) for s in range(3)], HOT, HOT)
    }

    assert len(outputs) == 5


def test_a_second_turn_reuses_the_first(driver: Driver) -> None:
    model = driver.load()
    # Longer than any engine's page of cache.
    first = "tell me all about it, please. " * 20 + "\n"
    answer = text(run(model, driver.task(first)))

    events = run(model, driver.task(first + answer + "\nand more\n"))

    assert started(events).cached_tokens >= 256


def test_a_common_beginning_is_shared_while_it_runs(driver: Driver) -> None:
    model = driver.load(ENDLESS, max_sequences=2)
    system = "you are a very patient assistant. " * 20
    long = driver.task(system + "a\n", stop=StopParams(max_tokens=200))
    submit(model, long)
    step_until(model, lambda events: bool(deltas(events, long)))
    late = driver.task(system + "b\n", stop=StopParams(max_tokens=1))
    submit(model, late)

    events = step_until(model, lambda events: bool(ends(events)))

    (begun,) = [e for e in events if isinstance(e, Started) and e.task_id == late.task_id]
    assert begun.cached_tokens >= 256
    assert text(events, late) == " w0"


def test_a_resumed_output_goes_on_behind_itself(driver: Driver) -> None:
    model = driver.load()
    whole = tokens(run(model, driver.task()))

    events = run(model, driver.task(resume_token_ids=tuple(whole[:2])))

    assert tokens(events) == whole[2:]
    assert text(events) == " model bravo"


@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_a_resumed_output_draws_what_it_would_have_drawn(driver: Driver, top_p: float) -> None:
    """Also where truncation sometimes leaves one token, of which nothing has to be drawn."""
    model = driver.load()
    hot = SamplingParams(temperature=2.0, top_p=top_p, seed=11)
    stop = StopParams(max_tokens=24, ignore_eos=True)
    whole = tokens(run(model, driver.task(sampling=hot, stop=stop)))

    for at in (1, 10, 23):
        resumed = driver.task(sampling=hot, stop=stop, resume_token_ids=tuple(whole[:at]))
        assert tokens(run(model, resumed)) == whole[at:]


def test_a_resumed_output_counts_what_it_had(driver: Driver) -> None:
    model = driver.load(ENDLESS)
    first = tokens(run(model, driver.task(stop=StopParams(max_tokens=4))))
    stop = StopParams(max_tokens=6)

    events = run(model, driver.task(stop=stop, resume_token_ids=tuple(first)))

    assert text(events) == " w4 w5"
    assert ended(events).completion_tokens == 6
    assert started(events).prompt_tokens == 3


def test_control_tokens_come_from_the_template_alone(driver: Driver) -> None:
    model = driver.load()
    control, turn_end = "<|im_end|>", model.info.control_tokens["<|im_end|>"]

    said = model.tokenize(Prompt((Segment(f"I write {control} here"),)))
    meant = model.tokenize(Prompt((Segment("I write "), Segment(control, control=True))))

    assert turn_end not in said
    assert meant[-1] == turn_end


def test_touching_runs_are_tokenised_as_one(driver: Driver) -> None:
    model = driver.load()

    apart = model.tokenize(Prompt((Segment("th"), Segment("e inn"))))

    assert apart == model.tokenize(Prompt((Segment("the inn"),)))


def test_token_ids_are_taken_as_they_are(driver: Driver) -> None:
    model = driver.load()
    ids = tuple(model.tokenize(Prompt((Segment("Hi\n"),))))

    events = run(model, driver.task(Prompt(token_ids=ids)))

    assert text(events) == "Hello from model bravo"


def test_two_models_run_side_by_side(driver: Driver) -> None:
    one = driver.load(Script(words=("It", " is", " one"), name="one"))
    two = driver.load(Script(words=("We", " are", " two"), name="two"))
    task_one, task_two = driver.task(), driver.task()
    submit(one, task_one)
    submit(two, task_two)

    events = []
    while one.has_work or two.has_work:
        events += [*one.step(), *two.step()]

    assert text(events, task_one) == "It is one"
    assert text(events, task_two) == "We are two"


def test_it_says_what_it_is(driver: Driver) -> None:
    info = driver.load(max_sequences=3, max_queued=5).info

    assert info.engine == driver.engine.name
    assert (info.max_sequences, info.max_queued, info.max_context_tokens) == (3, 5, 1024)
    assert info.vocabulary_size == 263
    assert info.chat_template is not None
    assert info.eos_token == "<|im_end|>"
    assert {"<|im_start|>", "<|im_end|>"} <= info.control_tokens.keys()
    assert info.cache_tokens >= 1024
    assert sum(info.memory_bytes.values()) > 0


def test_greedy_is_the_same_at_every_repeat(driver: Driver) -> None:
    model = driver.load(ENDLESS)
    stop = StopParams(max_tokens=50)

    outputs = [tokens(run(model, driver.task(sampling=GREEDY, stop=stop))) for _ in range(3)]

    assert outputs[0] == outputs[1] == outputs[2]

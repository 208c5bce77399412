"""What sampling fields do to the output."""

import json
import math

import msgspec
import pytest

from services.neuron.engine_api.events import Delta, EndReason
from services.neuron.engine_api.task import (
    Constraint,
    ConstraintKind,
    Prompt,
    SamplingParams,
    StopParams,
)
from tests.contract.engine.driving import GREEDY, Driver, deltas, ended, failed, run, text, tokens
from tests.doubles.scripted import Script

LOOP = Script(words=(" ping", " pong"), is_endless=True)
TEN = StopParams(max_tokens=10)
PERSON = json.dumps(
    {
        "type": "object",
        "properties": {
            "name": {"enum": ["Ann", "Bob"]},
            "age": {"type": "integer", "minimum": 1, "maximum": 99},
        },
        "required": ["name", "age"],
        "additionalProperties": False,
    }
)


def test_a_banned_token_is_never_said(driver: Driver) -> None:
    model = driver.load()
    whole = tokens(run(model, driver.task()))
    banned = SamplingParams(temperature=0, logit_bias={whole[1]: -100.0})

    said = tokens(run(model, driver.task(sampling=banned, stop=TEN)))

    assert said[0] == whole[0]
    assert whole[1] not in said


def test_a_favoured_token_is_said(driver: Driver) -> None:
    model = driver.load()
    wanted = model.tokenize(driver.task("z").prompt)[0]
    favour = SamplingParams(temperature=0, logit_bias={wanted: 100.0})

    said = tokens(run(model, driver.task(sampling=favour, stop=TEN)))

    assert said == [wanted] * 10


@pytest.mark.parametrize(
    "penalty",
    [
        SamplingParams(presence_penalty=20.0),
        SamplingParams(frequency_penalty=8.0),
        SamplingParams(repetition_penalty=50.0),
    ],
    ids=["presence", "frequency", "repetition"],
)
def test_a_penalty_breaks_a_loop(driver: Driver, penalty: SamplingParams) -> None:
    model = driver.load(LOOP)

    # A rival that only a penalty can bring to the top: the script's own logits are about 12.
    (rival,) = model.tokenize(driver.task("z").prompt)

    def said(params: SamplingParams) -> str:
        sampling = msgspec.structs.replace(params, temperature=0, logit_bias={rival: 6.0})
        return text(run(model, driver.task(sampling=sampling, stop=TEN)))

    plain, penalised = said(SamplingParams()), said(penalty)

    assert plain == " ping pong" * 5
    assert penalised != plain


def test_presence_counts_the_output_alone_and_repetition_the_prompt_too(driver: Driver) -> None:
    model = driver.load(LOOP)
    one = StopParams(max_tokens=1)
    ping = tokens(run(model, driver.task(stop=one)))[0]
    prompt = Prompt(token_ids=(ping, *model.tokenize(driver.task("\n").prompt)))
    rival = {model.tokenize(driver.task("z").prompt)[0]: 6.0}
    seen = SamplingParams(temperature=0, repetition_penalty=50.0, logit_bias=rival)
    said = SamplingParams(temperature=0, presence_penalty=20.0, logit_bias=rival)

    presence = run(model, driver.task(prompt, sampling=said, stop=one))
    repetition = run(model, driver.task(prompt, sampling=seen, stop=one))

    assert tokens(presence) == [ping]
    assert tokens(repetition) != [ping]


def test_a_penalty_sees_resumed_output(driver: Driver) -> None:
    model = driver.load(LOOP)
    ping, pong = tokens(run(model, driver.task(stop=StopParams(max_tokens=2))))
    sampling = SamplingParams(temperature=0, presence_penalty=20.0)
    stop = StopParams(max_tokens=3, ignore_eos=True)

    events = run(model, driver.task(sampling=sampling, stop=stop, resume_token_ids=(ping, pong)))

    assert tokens(events)[0] not in {ping, pong}


@pytest.mark.parametrize(
    "narrow",
    [
        SamplingParams(temperature=5.0, top_k=1),
        SamplingParams(temperature=1.0, top_p=0.5),
        SamplingParams(temperature=1.0, min_p=0.5),
        SamplingParams(temperature=1.0, typical_p=0.5),
    ],
    ids=["top_k", "top_p", "min_p", "typical"],
)
def test_truncation_leaves_the_likeliest(driver: Driver, narrow: SamplingParams) -> None:
    model = driver.load(LOOP)

    said = text(run(model, driver.task(sampling=narrow, stop=StopParams(max_tokens=40))))

    assert said == " ping pong" * 20


def test_logprobs_describe_every_token(driver: Driver) -> None:
    model = driver.load()

    events = run(model, driver.task(top_logprobs=3))

    entries = [entry for delta in deltas(events) for entry in delta.logprobs]
    assert [entry.token_id for entry in entries] == tokens(events)
    assert b"".join(entry.text for entry in entries).decode() == text(events)
    assert all(-0.1 < entry.logprob <= 0 for entry in entries)
    for entry in entries:
        values = [alternative.logprob for alternative in entry.alternatives]
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
        assert entry.alternatives[0].token_id == entry.token_id


def test_zero_top_logprobs_reports_the_chosen_alone(driver: Driver) -> None:
    model = driver.load()

    events = run(model, driver.task(top_logprobs=0))

    entries = [entry for delta in deltas(events) for entry in delta.logprobs]
    assert len(entries) == 4
    assert all(entry.alternatives == () for entry in entries)


def test_logprobs_are_those_before_truncation_and_temperature(driver: Driver) -> None:
    model = driver.load()
    cold = run(model, driver.task(top_logprobs=0))
    narrow = SamplingParams(temperature=0.1, top_k=1)

    events = run(model, driver.task(top_logprobs=0, sampling=narrow))

    for ours, plain in zip(deltas(events), deltas(cold), strict=True):
        assert math.isclose(ours.logprobs[0].logprob, plain.logprobs[0].logprob, abs_tol=1e-3)


def test_the_prompts_own_logprobs_come_first(driver: Driver) -> None:
    model = driver.load()
    task = driver.task("What is it?\n", echo_prompt_logprobs=True, top_logprobs=1)
    run(model, driver.task("What is it?\n"))  # its cached prompt must not be in the way

    events = run(model, task)

    first, *_ = deltas(events)
    assert [entry.token_id for entry in first.logprobs] == model.tokenize(task.prompt)
    assert first.token_ids == ()
    assert all(entry.logprob < 0 for entry in first.logprobs[1:])
    assert b"".join(entry.text for entry in first.logprobs) == b"What is it?\n"
    assert text(events) == "Hello from model bravo"


def test_a_schema_is_kept(driver: Driver) -> None:
    model = driver.load()
    constraint = Constraint(ConstraintKind.JSON_SCHEMA, PERSON)
    hot = [SamplingParams(temperature=2.0, seed=seed) for seed in range(4)]

    for sampling in (GREEDY, *hot):
        events = run(model, driver.task(constraint=constraint, sampling=sampling))
        person = json.loads(text(events))
        assert ended(events).reason is EndReason.END_OF_TURN
        assert person["name"] in {"Ann", "Bob"}
        assert 1 <= person["age"] <= 99


def test_a_json_object_is_an_object(driver: Driver) -> None:
    model = driver.load()
    favour = {model.tokenize(driver.task(c).prompt)[0]: 30.0 for c in '"}'}
    sampling = SamplingParams(temperature=0, logit_bias=favour)

    events = run(
        model,
        driver.task(constraint=Constraint(ConstraintKind.JSON_OBJECT), sampling=sampling),
    )

    assert isinstance(json.loads(text(events)), dict)


@pytest.mark.parametrize(
    ("kind", "source", "said"),
    [
        (ConstraintKind.REGEX, "ab{3}c", "abbbc"),
        (ConstraintKind.LARK, 'start: "yes" | "yes!"', "yes"),
    ],
)
def test_regex_and_grammar_are_kept(
    driver: Driver, kind: ConstraintKind, source: str, said: str
) -> None:
    model = driver.load()

    events = run(model, driver.task(constraint=Constraint(kind, source)))

    assert text(events).startswith(said)
    assert ended(events).reason is EndReason.END_OF_TURN


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        (ConstraintKind.JSON_SCHEMA, '{"type": "objekt"}'),
        (ConstraintKind.JSON_SCHEMA, "{not json"),
        (ConstraintKind.JSON_SCHEMA, '{"$ref": "#/definitions/nope"}'),
        (ConstraintKind.REGEX, "a(b"),
        (ConstraintKind.LARK, "start: missing"),
        (ConstraintKind.JSON_SCHEMA, '{"$ref": "#"}'),
        # nothing can follow the first character
        (ConstraintKind.LARK, 'start: "{" b\nb: b "x"'),
    ],
)
def test_a_bad_constraint_is_refused_with_its_reason(
    driver: Driver, kind: ConstraintKind, source: str
) -> None:
    model = driver.load()

    event = failed(run(model, driver.task(constraint=Constraint(kind, source))))

    assert event.reason == "BAD_CONSTRAINT"
    assert event.message


def test_a_resumed_constraint_goes_on(driver: Driver) -> None:
    model = driver.load()
    constraint = Constraint(ConstraintKind.REGEX, "ab{3}c")
    whole = tokens(run(model, driver.task(constraint=constraint)))

    events = run(model, driver.task(constraint=constraint, resume_token_ids=tuple(whole[:2])))

    assert tokens(events) == whole[2:]


def test_constrained_and_free_tasks_run_together(driver: Driver) -> None:
    model = driver.load(max_sequences=4)
    free = [driver.task() for _ in range(2)]
    bound = [driver.task(constraint=Constraint(ConstraintKind.REGEX, "ab{3}c")) for _ in range(2)]

    events = run(model, *free, *bound)

    assert [text(events, task) for task in free] == ["Hello from model bravo"] * 2
    assert [text(events, task) for task in bound] == ["abbbc"] * 2
    assert all(isinstance(event, Delta) for event in deltas(events))

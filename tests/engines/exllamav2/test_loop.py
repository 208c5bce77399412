"""What is ExLlamaV2's own: pages, reservations, chunks, drafts."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from gpu.raw_loop import drive
from services.neuron.engine_api.engine import Engine
from services.neuron.engine_api.events import Delta
from services.neuron.engine_api.model import LoadFailed
from services.neuron.engine_api.task import Constraint, ConstraintKind, SamplingParams, StopParams
from services.neuron.engines.exllamav2.batch import stream_factory
from services.neuron.engines.exllamav2.batch.jobs import SampledJob
from services.neuron.engines.exllamav2.model import batch_generator, generators
from services.neuron.engines.exllamav2.model.batch_generator import BatchGenerator
from services.neuron.engines.exllamav2.model.generators import MOST_READS
from tests.contract.engine.driving import ended, ends, failed, run, started, step_until, submit
from tests.contract.engine.driving import tokens as tokens_of
from tests.engines.exllamav2 import folders
from tests.engines.exllamav2.loading_models import load, said, task
from tests.engines.exllamav2.stubbed_forward import NEW_TOKENS, stub, wanted

HOT = SamplingParams(temperature=1.3, seed=5)


def test_the_backend_is_told(engine: Engine, loaded: Any) -> None:
    assert engine.facts["attention"] == "torch"
    assert loaded().info.facts["attention"] == "torch"


def test_a_long_output_goes_on_over_several_reservations(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded()
    (unbroken,) = said(model, task("a long tale ", tokens=300))
    monkeypatch.setattr(stream_factory, "RESERVED_TOKENS", 70)

    events = run(model, task("a long tale ", tokens=300))

    assert tokens_of(events) == unbroken
    assert ended(events).completion_tokens == 300
    assert started(events).prompt_tokens == 12


def test_a_request_waits_for_pages_and_then_runs(loaded: Any) -> None:
    model = loaded(cache_tokens=1024, max_context_tokens=1024)
    wide = [task(f"{n} ", tokens=500) for n in range(3)]  # two pages each, four in all
    submit(model, *wide)
    model.step()

    assert model.stats().active == 2
    assert model.stats().queued == 1
    assert model.stats().cache_tokens_used == 1024
    model.step()
    waiting = model._streams[wide[2].task_id].spare
    assert waiting is not None
    model.step()
    assert model._streams[wide[2].task_id].spare is waiting  # made once, however long it waits
    assert len(ends(step_until(model, lambda events: len(ends(events)) == 3))) == 3


def test_what_can_never_fit_the_cache_is_refused_with_numbers(loaded: Any) -> None:
    model = loaded(cache_tokens=512, max_context_tokens=512)

    event = failed(run(model, task("x" * 600)))

    assert event.reason == "CONTEXT_TOO_LONG"
    assert event.facts["max_context_tokens"] == "512"


def test_all_pages_are_free_in_the_end(loaded: Any) -> None:
    model = loaded(max_sequences=4)
    tasks = [task("p" * (100 * n + 1), tokens=40) for n in range(6)]
    submit(model, *tasks)
    step_until(model, lambda events: len(ends(events)) >= 2)
    model.cancel(tasks[4].task_id)
    while model.has_work:
        model.step()

    assert model.stats().cache_tokens_used == 0
    assert model.stats().active == 0


@pytest.mark.parametrize("streams", [4, 16, 64])
def test_streams_take_as_many_passes_as_in_the_librarys_own_loop(loaded: Any, streams: int) -> None:
    model = loaded(max_sequences=64, max_context_tokens=512)
    passes = stub(model._parts, streams=64)
    library, arguments = model._parts.library, model._parts.generator_arguments
    generator = library.generator.ExLlamaV2DynamicGenerator(**arguments)
    drive(library, generator, wanted(streams), new_tokens=NEW_TOKENS)
    theirs = passes.decoded

    run(model, *[task(prompt, tokens=NEW_TOKENS) for prompt in wanted(streams)])

    assert passes.decoded - theirs <= 1.01 * theirs
    model._parts.retire(generator)


def test_prompts_beyond_what_a_step_reads_begin_to_talk_together(loaded: Any) -> None:
    model = loaded(max_sequences=16, max_context_tokens=2048, cache_tokens=32_768)
    tasks = [task(chr(97 + n) * 1500, tokens=20) for n in range(16)]  # three steps' worth
    submit(model, *tasks)

    events = step_until(model, lambda events: bool(tokens_of(events)))

    assert all(len(tokens_of(events, one)) == 1 for one in tasks)


def test_no_stream_waits_for_prompts_without_end(loaded: Any) -> None:
    model = loaded(max_sequences=64, max_context_tokens=2048, cache_tokens=131_072)
    stub(model._parts, streams=64)
    submit(
        model, *[task([9 + n, *range(20, 250), *range(20, 250)] * 4, tokens=20) for n in range(64)]
    )
    steps = 0
    while not tokens_of(model.step()):
        steps += 1

    assert steps <= MOST_READS + 1


def test_a_greedy_stream_without_rules_costs_no_row_of_logits(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(max_sequences=4)
    (unbroken, hot) = said(model, task("plain "), task("hot ", sampling=HOT))
    read: list[int] = []
    copied = BatchGenerator._copied

    def watched(self: Any, logits: Any, wanting: Any) -> Any:
        rows = copied(self, logits, wanting)
        assert self.logits_pinned.dtype == logits.dtype  # one type: else it is no pinned copy
        read.append(len(rows))
        return rows

    monkeypatch.setattr(BatchGenerator, "_copied", watched)
    monkeypatch.setattr(SampledJob, "receive_logits", None)
    assert said(model, task("plain ")) == [unbroken]
    assert not read

    monkeypatch.undo()
    monkeypatch.setattr(BatchGenerator, "_copied", watched)
    assert said(model, task("plain "), task("hot ", sampling=HOT)) == [unbroken, hot]
    assert set(read) == {1}


def test_a_pinned_buffer_is_asked_for_where_there_is_a_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "empty", lambda *_, **named: asked.append(named))

    batch_generator._host_buffer((2, 1, 32), torch.half)

    assert asked == [{"dtype": torch.half, "pin_memory": True}]


def test_threads_sample_where_the_logits_are_many(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = [("one ", 1), ("two ", 2), ("three ", 3), ("four ", 4)]
    hot = [SamplingParams(temperature=1.3, seed=seed) for _, seed in tasks]
    alone = loaded(max_sequences=8)
    unbroken = said(
        alone, *[task(one, sampling=by) for (one, _), by in zip(tasks, hot, strict=True)]
    )
    assert alone._generator.max_sampling_threads == 1
    monkeypatch.setattr(generators, "MANY_LOGITS", 1)
    on_threads: set[int] = set()
    receive = SampledJob.receive_logits

    def watched(self: Any, logits: Any) -> Any:
        on_threads.add(threading.get_ident())
        return receive(self, logits)

    monkeypatch.setattr(SampledJob, "receive_logits", watched)

    model = loaded(max_sequences=8)

    assert model._generator.max_sampling_threads == generators.MANY_SAMPLING_THREADS
    made = said(model, *[task(one, sampling=by) for (one, _), by in zip(tasks, hot, strict=True)])
    assert made == unbroken
    assert threading.get_ident() not in on_threads
    assert on_threads


@pytest.mark.parametrize(
    "fields",
    [
        {"sampling": HOT},
        {"sampling": SamplingParams(temperature=0, frequency_penalty=1)},
        {"sampling": SamplingParams(temperature=0, repetition_penalty=1.2)},
        {"sampling": SamplingParams(temperature=0, logit_bias={70: -5.0})},
        {"top_logprobs": 1},
        {"constraint": Constraint(ConstraintKind.REGEX, "[a-z]{30}")},
    ],
    ids=repr,
)
def test_whoever_has_rules_samples_from_a_row(
    loaded: Any, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]
) -> None:
    model = loaded(max_sequences=4)
    count = 0
    receive = SampledJob.receive_logits

    def watched(self: Any, logits: Any) -> Any:
        nonlocal count
        count += 1
        return receive(self, logits)

    monkeypatch.setattr(SampledJob, "receive_logits", watched)

    assert len(said(model, task("x", tokens=7, **fields))[0]) == count == 7


def test_end_tokens_stay_away_until_the_best_may_be_taken(loaded: Any) -> None:
    model = loaded(max_sequences=4)
    stop = StopParams(max_tokens=12, min_tokens=5)
    plain = task("plain ", stop=stop)
    job = model._factory.make_job(model._receive(plain, [70, 71]))

    assert not job.takes_best
    for _ in range(5):
        job.receive_best(70)
    assert job.takes_best


def test_one_prompt_is_read_beside_a_talking_stream_but_short_ones_together(loaded: Any) -> None:
    model = loaded(max_sequences=16)
    submit(model, task("talk ", tokens=400))
    step_until(model, lambda events: bool(tokens_of(events)))
    submit(model, *[task(f"{n} ", tokens=30) for n in range(8)])
    model.step()
    assert len(model._running) == 9

    submit(model, *[task(chr(97 + n) * 1500, tokens=2) for n in range(2)])
    model.step()
    assert sum(stream.is_prefilling for stream in model._running.values()) == 1


def test_reading_prompts_holds_up_a_talking_stream_by_bounded_chunks(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded(max_sequences=8)
    talking = task("talk ", tokens=400)
    submit(model, talking)
    step_until(model, lambda events: bool(tokens_of(events)))
    read = [0]
    forward = model._parts.model.forward_chunk

    def forward_chunk(**kwargs: Any) -> Any:
        if kwargs.get("preprocess_only"):
            read[-1] += kwargs["input_ids"].shape[-1]
        return forward(**kwargs)

    monkeypatch.setattr(model._parts.model, "forward_chunk", forward_chunk)
    submit(model, *[task(chr(97 + n) * 1800, tokens=1) for n in range(6)])
    said_per_step: list[int] = []
    finished = 0
    while finished < 6:
        read.append(0)
        events = model.step()
        finished += len(ends(events))
        said_per_step.append(len(tokens_of(events, talking)))

    # What a token has to wait for.
    assert max(read) <= 512
    assert sum(read) > 5000
    assert said_per_step == [1] * len(said_per_step)


def test_a_prompts_own_logprobs_hold_up_nobody(loaded: Any) -> None:
    model = loaded(max_sequences=2)
    talking = task("talk ", tokens=400)
    submit(model, talking)
    step_until(model, lambda events: bool(tokens_of(events)))
    echoing = task("e" * 300, tokens=3, echo_prompt_logprobs=True, top_logprobs=1)
    submit(model, echoing)

    events = step_until(model, lambda events: bool(ends(events)))

    (first, *_) = [e for e in events if isinstance(e, Delta) and e.task_id == echoing.task_id]
    assert len(first.logprobs) == 300
    assert b"".join(entry.text for entry in first.logprobs) == b"e" * 300
    # 32 tokens of the prompt for each one of the other's.
    assert len(tokens_of(events[: events.index(first)], talking)) >= 9
    assert len(tokens_of(events, echoing)) == 3


@pytest.mark.parametrize("speculation", ["ngram", "draft"])
def test_speculation_changes_nothing_but_the_number_of_steps(
    loaded: Any, folder: Path, speculation: str
) -> None:
    plain = loaded()
    prompts = ["abcabcabcabc", "the the the the ", "x"]
    unbroken = said(plain, *[task(prompt, tokens=40) for prompt in prompts])
    fields: dict[str, Any] = (
        {"ngram_draft": True} if speculation == "ngram" else {"draft_path": str(folder)}
    )
    model = loaded(max_sequences=4, **fields)

    events = run(model, *(tasks := [task(prompt, tokens=40) for prompt in prompts]))

    assert [tokens_of(events, one) for one in tasks] == unbroken
    assert model.info.facts["speculation"] != "none"
    if speculation == "draft":
        assert all(end.accepted_draft_tokens > 20 for end in ends(events))  # type: ignore[union-attr]


def test_credit_holds_with_drafts(loaded: Any, folder: Path) -> None:
    model = loaded(draft_path=str(folder))
    (unbroken,) = said(model, task("abc", tokens=30))
    held = task("abc", tokens=30, credit_tokens=7)
    submit(model, held)
    events = []
    while model.has_work:
        events += model.step()

    assert tokens_of(events) == unbroken[:7]

    model.credit(held.task_id, 100)
    events += step_until(model, lambda events: bool(ends(events)))
    assert tokens_of(events) == unbroken


def test_a_drafts_vocabulary_must_be_the_models(
    engine: Engine, folder: Path, tmp_path: Path
) -> None:
    other = folders.build_random(tmp_path / "other", vocab_size=2048)

    with pytest.raises(LoadFailed, match=r"vocabulary|shape|size") as caught:
        load(engine, folder, draft_path=str(other))

    assert caught.value.reason == "LOAD_FAILED"


def test_a_broken_grammar_midway_fails_its_stream_alone(loaded: Any) -> None:
    model = loaded(max_sequences=2)
    (unbroken,) = said(model, task("free "))
    free = task("free ")
    bound = task("bound ", constraint=Constraint(ConstraintKind.REGEX, "[a-z]{30}"))
    submit(model, free, bound)
    events = step_until(model, lambda events: len(tokens_of(events, bound)) >= 3)
    from services.neuron.engines.common.constraint import BadConstraintError

    model._streams[bound.task_id].job.constraint.error = BadConstraintError("too complex")
    events += step_until(model, lambda events: len(ends(events)) == 2)

    assert failed(events).reason == "BAD_CONSTRAINT"
    assert tokens_of(events, free) == unbroken


def test_a_constraint_outlives_a_reservation(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_factory, "RESERVED_TOKENS", 5)
    model = loaded()
    bound = task("x", constraint=Constraint(ConstraintKind.REGEX, "[ab]{17}c"), stop=StopParams())

    (ids,) = said(model, bound)

    text = bytes(i - 3 for i in ids).decode()
    assert len(text) == 18
    assert set(text[:17]) <= {"a", "b"}
    assert text[17] == "c"

"""Cache reuse over a model whose every token depends on the whole context."""

from pathlib import Path

import pytest

from services.neuron.engine_api.engine import Interruptible, LoadedModel
from services.neuron.engine_api.events import Delta, Ended, Event, Failed, Started
from services.neuron.engine_api.task import Prompt, SamplingParams, StopParams, Task, WorkClass
from services.neuron.engines.llamacpp.library.library import Library
from tests.doubles import random_llama
from tests.unit.neuron.engines.llamacpp.conftest import LoadModel

STOP = StopParams(max_tokens=12, ignore_eos=True)


@pytest.fixture
def model(load: LoadModel, tmp_path: Path) -> LoadedModel:
    path = random_llama.build(tmp_path / "r.gguf")
    return load(path, max_sequences=2, max_context_tokens=1024)


def run(model: LoadedModel, ids: list[int], task_id: int = 1) -> list[Event]:
    task = Task(task_id, "i", Prompt(token_ids=tuple(ids)), SamplingParams(temperature=0), STOP)
    model.submit(task, ids)
    events: list[Event] = []
    while not any(isinstance(event, Ended) for event in events):
        events += model.step()
    return events


def output(events: list[Event]) -> list[int]:
    return [t for event in events if isinstance(event, Delta) for t in event.token_ids]


def cached(events: list[Event]) -> int:
    return next(event.cached_tokens for event in events if isinstance(event, Started))


PROMPT = [3 + (i * 37) % 256 for i in range(150)]


def test_a_reused_prefix_gives_the_same_output(model: LoadedModel) -> None:
    cold = run(model, PROMPT)

    warm = run(model, PROMPT)

    assert (cached(cold), cached(warm)) == (0, 149)
    assert output(warm) == output(cold)


def test_a_prefix_copied_from_another_slot_gives_the_same_output(
    load: LoadModel, tmp_path: Path, model: LoadedModel
) -> None:
    fresh = load(tmp_path / "r.gguf", max_sequences=2, max_context_tokens=1024)
    branch = [*PROMPT[:64], *PROMPT[10:20]]
    expected = output(run(fresh, branch))
    run(model, PROMPT)

    events = run(model, branch)

    assert cached(events) == 64
    assert output(events) == expected
    assert cached(run(model, PROMPT)) == 149  # the donor is untouched


def test_a_prefix_copied_from_a_running_task_gives_the_same_output(
    load: LoadModel, tmp_path: Path, model: LoadedModel
) -> None:
    fresh = load(tmp_path / "r.gguf", max_sequences=2, max_context_tokens=1024)
    branch = [*PROMPT[:100], *PROMPT[10:20]]
    expected = output(run(fresh, PROMPT)), output(run(load(tmp_path / "r.gguf"), branch))
    first = Task(1, "i", Prompt(), SamplingParams(temperature=0), STOP)
    model.submit(first, PROMPT)
    events: list[Event] = []
    while not any(isinstance(event, Delta) for event in events):
        events += model.step()

    both = [*events, *run(model, branch, task_id=2)]
    while model.has_work:
        both += model.step()

    assert cached([event for event in both if event.task_id == 2]) == 100
    assert output([event for event in both if event.task_id == 1]) == expected[0]
    assert output([event for event in both if event.task_id == 2]) == expected[1]


def test_chunked_prefill_gives_the_same_output_beside_others(
    load: LoadModel, tmp_path: Path, model: LoadedModel
) -> None:
    fresh = load(tmp_path / "r.gguf", max_sequences=2, max_context_tokens=1024)
    other = [7 + (i * 11) % 200 for i in range(300)]
    expected = [output(run(fresh, PROMPT)), output(run(fresh, other))]
    tasks = [
        Task(n, "i", Prompt(token_ids=tuple(ids)), SamplingParams(temperature=0), STOP)
        for n, ids in enumerate((PROMPT, other))
    ]
    for task in tasks:
        model.submit(task, task.prompt.token_ids or ())

    events: list[Event] = []
    while model.has_work:
        events += model.step()

    assert [output([e for e in events if e.task_id == n]) for n in range(2)] == expected


def test_text_that_is_no_utf8_is_still_text(model: LoadedModel) -> None:
    events = run(model, PROMPT)

    texts = [event.text for event in events if isinstance(event, Delta)]
    assert "".join(texts).encode()


def interrupting(
    library: Library, monkeypatch: pytest.MonkeyPatch, model: LoadedModel, task_ids: set[int]
) -> None:
    """Has another thread's interrupt arrive at the beginning of the next pass."""
    decode = library.decode

    def decode_once(*arguments: object) -> int:
        monkeypatch.setattr(library, "decode", decode)
        assert isinstance(model, Interruptible)
        model.interrupt(task_ids)
        return int(decode(*arguments))

    monkeypatch.setattr(library, "decode", decode_once)


@pytest.mark.parametrize("steps_before", [0, 1, 5], ids=["prefill", "prefill 2", "decode"])
def test_an_interrupted_step_is_done_again(
    load: LoadModel,
    tmp_path: Path,
    model: LoadedModel,
    library: Library,
    monkeypatch: pytest.MonkeyPatch,
    steps_before: int,
) -> None:
    fresh = load(tmp_path / "r.gguf", max_sequences=2, max_context_tokens=1024)
    expected = output(run(fresh, PROMPT))
    model.submit(Task(1, "i", Prompt(), SamplingParams(temperature=0), STOP), PROMPT)
    events = [event for _ in range(steps_before) for event in model.step()]
    interrupting(library, monkeypatch, model, {1})

    interrupted = model.step()

    assert not any(isinstance(event, Delta) for event in interrupted)
    while model.has_work:
        events += model.step()
    assert output(events) == expected


def test_a_step_that_serves_others_too_is_not_interrupted(
    model: LoadedModel, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    for task_id in (1, 2):
        task = Task(task_id, "i", Prompt(), SamplingParams(temperature=0), STOP)
        model.submit(task, PROMPT[: 10 + task_id])
    interrupting(library, monkeypatch, model, {1})

    events = model.step()

    assert {event.task_id for event in events if isinstance(event, Delta)} == {1, 2}


def hurrying(
    library: Library, monkeypatch: pytest.MonkeyPatch, model: LoadedModel, passes: int
) -> list[int]:
    """Has somebody come in each of the next passes. Returns their codes, as they come."""
    decode, codes = library.decode, list[int]()

    def decode_hurried(*arguments: object) -> int:
        assert isinstance(model, Interruptible)
        if len(codes) < passes:
            model.hurry()
        codes.append(int(decode(*arguments)))
        return codes[-1]

    monkeypatch.setattr(library, "decode", decode_hurried)
    return codes


@pytest.mark.parametrize("kind", [WorkClass.BATCH, WorkClass.DEFAULT])
def test_a_step_of_batch_work_alone_yields_to_who_comes_but_never_twice_in_a_row(
    load: LoadModel,
    tmp_path: Path,
    model: LoadedModel,
    library: Library,
    monkeypatch: pytest.MonkeyPatch,
    kind: WorkClass,
) -> None:
    expected = output(run(load(tmp_path / "r.gguf", max_context_tokens=1024), PROMPT))
    codes = hurrying(library, monkeypatch, model, 4)
    greedy = SamplingParams(temperature=0)
    model.submit(Task(1, "i", Prompt(), greedy, STOP, work_class=kind), PROMPT)

    events: list[Event] = []
    while model.has_work:
        events += model.step()

    assert output(events) == expected
    is_cut = [code == 2 for code in codes[:4]]
    assert is_cut == ([True, False, True, False] if kind is WorkClass.BATCH else [False] * 4)


def test_batch_prompts_cost_an_interactive_one_no_further_step(
    load: LoadModel, tmp_path: Path
) -> None:
    model = load(random_llama.build(tmp_path / "m.gguf"), max_sequences=4, max_context_tokens=1024)
    greedy = SamplingParams(temperature=0)
    for task_id in (1, 2):
        batch = Task(task_id, "i", Prompt(), greedy, STOP, work_class=WorkClass.BATCH)
        model.submit(batch, PROMPT * 3)
    model.step()
    urgent = Task(3, "i", Prompt(), greedy, STOP, work_class=WorkClass.INTERACTIVE)
    model.submit(urgent, PROMPT[:64])

    events = model.step()

    assert any(isinstance(event, Delta) and event.task_id == 3 for event in events)


def test_an_output_that_is_no_number_fails_its_task(load: LoadModel, tmp_path: Path) -> None:
    broken = load(random_llama.build(tmp_path / "inf.gguf", overflows=True))
    broken.submit(Task(1, "i", Prompt(), SamplingParams(temperature=1), STOP), PROMPT[:5])

    events = broken.step()

    (failure,) = [event for event in events if isinstance(event, Failed)]
    assert failure.reason == "ENGINE_FAILED"
    assert broken.stats().active == 0

"""Caches that outlive their model, with real llama.cpp contexts of every kind."""

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from services.neuron.engine_api.engine import Hibernating, LoadedModel
from services.neuron.engine_api.events import Delta, Ended, Event, Started
from services.neuron.engine_api.model import KvStorePlan, KvTier
from services.neuron.engine_api.task import Prompt, SamplingParams, StopParams, Task
from services.neuron.engines.common.kv_store import hibernation
from services.neuron.engines.common.kv_store.sealing import make_key
from services.neuron.engines.llamacpp.engine import LlamaCppEngine
from tests.doubles import random_hybrid, random_llama
from tests.unit.neuron.engines.llamacpp.conftest import LoadModel

KINDS: dict[str, Callable[[Path], Path]] = {
    "full": random_llama.build,
    "hybrid": random_hybrid.build_hybrid,
    "recurrent": random_hybrid.build_recurrent,
    "windowed": random_hybrid.build_windowed,
}
Fresh = Callable[..., LoadedModel]
LENGTH = 400


@pytest.fixture(params=KINDS)
def fresh(request: pytest.FixtureRequest, load: LoadModel, tmp_path: Path) -> Fresh:
    """Loads the same weights once more, with the same store."""
    path = KINDS[request.param](tmp_path / "model.gguf")
    (tmp_path / "kv").mkdir()
    tier = KvTier(str(tmp_path / "kv"), 64 << 20)

    def fresh(
        fingerprint: str = "f", *, keeps_named: bool = False, key_file: str = "", **more: object
    ) -> LoadedModel:
        plan = KvStorePlan((tier,), fingerprint, keeps_named, key_file)
        return load(path, max_sequences=2, max_context_tokens=1024, kv_store=plan, **more)

    return fresh


def run(
    model: LoadedModel, ids: list[int], principal: str = "", resume: tuple[int, ...] = ()
) -> tuple[int, list[int]]:
    """Cached tokens and output of one greedy task."""
    sampling, stop = SamplingParams(temperature=0), StopParams(max_tokens=12, ignore_eos=True)
    task = Task(1, "i", Prompt(), sampling, stop, principal=principal, resume_token_ids=resume)
    model.submit(task, ids)
    events: list[Event] = []
    while not any(isinstance(event, Ended) for event in events):
        events += model.step()
    cached = next(event.cached_tokens for event in events if isinstance(event, Started))
    return cached, [t for event in events if isinstance(event, Delta) for t in event.token_ids]


def hibernate(model: LoadedModel) -> tuple[int, int]:
    assert isinstance(model, Hibernating)
    return model.hibernate()


def text(length: int, seed: int) -> list[int]:
    return [3 + (i * 37 + seed * 91) % 256 for i in range(length)]


def test_the_next_turn_after_a_swap_reads_the_new_message_alone(fresh: Fresh) -> None:
    first = fresh()
    prompt = text(LENGTH, 1)
    _, answer = run(first, prompt)
    count, size = hibernate(first)
    turn = [*prompt, *answer, *text(20, 2)]

    cached, output = run(fresh(), turn)

    assert (count, size > 0) == (1, True)
    assert cached >= LENGTH - 1
    assert output == run(fresh("other"), turn)[1]  # equal to a cold run


def test_the_prompt_itself_again_gives_the_same_answer(fresh: Fresh) -> None:
    first = fresh()
    prompt = text(LENGTH, 1)
    expected = run(first, prompt)[1]
    hibernate(first)

    assert run(fresh(), prompt) == (LENGTH - 1, expected)


def test_what_is_in_memory_goes_before_what_was_saved(fresh: Fresh) -> None:
    first = fresh()
    prompt = text(LENGTH, 1)
    run(first, prompt)
    hibernate(first)
    second = fresh()
    run(second, prompt)

    assert run(second, prompt)[0] == LENGTH - 1


@pytest.mark.parametrize("change", ["files", "principal", "build"])
def test_nothing_is_restored_across(
    fresh: Fresh, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fresh(keeps_named=True)
    prompt = text(LENGTH, 1)
    run(first, prompt, "alice")
    assert hibernate(first)[0] == 1

    match change:
        case "files":
            cached, _ = run(fresh("g", keeps_named=True), prompt, "alice")
        case "principal":
            cached, _ = run(fresh(keeps_named=True), prompt, "bob")
        case _:
            monkeypatch.setattr(LlamaCppEngine, "facts", {"xllamacpp": "the next one"})
            cached, _ = run(fresh(keeps_named=True), prompt, "alice")

    assert cached == 0


def test_what_was_kept_of_a_caller_with_a_name_is_let_alone_once_that_is_forbidden(
    fresh: Fresh,
) -> None:
    first = fresh(keeps_named=True)
    prompt = text(LENGTH, 1)
    run(first, prompt, "alice")
    assert hibernate(first)[0] == 1

    assert run(fresh(keeps_named=False), prompt, "alice")[0] == 0


def test_what_the_host_has_no_memory_to_copy_is_not_saved(
    fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fresh()
    run(model, text(LENGTH, 1))
    left = psutil.virtual_memory()._replace(available=4096)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: left)

    assert hibernate(model) == (0, 0)


def test_what_a_caller_with_a_name_has_sent_is_not_kept_unless_allowed(fresh: Fresh) -> None:
    model = fresh()
    run(model, text(LENGTH, 1), "alice")

    assert hibernate(model) == (0, 0)


def test_in_memory_too_nobody_reuses_what_anothers_prompt_has_left(fresh: Fresh) -> None:
    model = fresh()
    prompt = text(LENGTH, 1)
    run(model, prompt, "alice")

    assert run(model, prompt, "bob")[0] == 0
    assert run(model, prompt, "alice")[0] == LENGTH - 1


def test_a_damaged_file_is_read_as_a_prompt(fresh: Fresh, tmp_path: Path) -> None:
    first = fresh()
    prompt = text(LENGTH, 1)
    expected = run(first, prompt)[1]
    hibernate(first)
    (file,) = (tmp_path / "kv").rglob("*.kv")
    damaged = bytearray(file.read_bytes())
    damaged[-9] ^= 1
    file.write_bytes(damaged)

    assert run(fresh(), prompt) == (0, expected)
    assert not file.exists()


def test_a_saved_context_larger_than_the_new_one_is_not_forced_into_it(fresh: Fresh) -> None:
    first = fresh()
    prompt = text(LENGTH, 1)
    run(first, prompt)
    hibernate(first)

    cached, output = run(fresh(cache_tokens=512), prompt[:200])

    assert output == run(fresh("other"), prompt[:200])[1]
    assert cached in {0, 199}


def test_a_file_that_is_read_too_slowly_is_left_and_the_prompt_is_read(
    fresh: Fresh, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fresh()
    prompt = text(LENGTH, 1)
    expected = run(first, prompt)[1]
    hibernate(first)
    monkeypatch.setattr(hibernation, "MOST_RESTORE_SECONDS", 0.0)

    assert run(fresh(), prompt) == (0, expected)

    monkeypatch.undo()
    assert run(fresh(), prompt) == (LENGTH - 1, expected)  # the file is still there


def test_a_stream_whose_worker_went_goes_on_from_what_was_saved_of_it(fresh: Fresh) -> None:
    prompt = text(LENGTH, 1)
    expected = run(fresh("other"), prompt)[1]
    first = fresh()
    stop = StopParams(max_tokens=12, ignore_eos=True)
    first.submit(Task(1, "i", Prompt(), SamplingParams(temperature=0), stop), prompt)
    made: list[int] = []
    while len(made) < 5:
        made += [t for event in first.step() if isinstance(event, Delta) for t in event.token_ids]
    hibernate(first)  # while it runs

    cached, rest = run(fresh(), prompt, resume=tuple(made))

    assert cached >= LENGTH - 1
    assert [*made, *rest] == expected


def test_what_is_encrypted_comes_back_with_the_same_key_alone(fresh: Fresh, tmp_path: Path) -> None:
    key, other = tmp_path / "a.key", tmp_path / "b.key"
    make_key(key)
    make_key(other)
    prompt = text(LENGTH, 1)
    first = fresh(key_file=str(key))
    expected = run(first, prompt)[1]
    hibernate(first)
    (file,) = (tmp_path / "kv").rglob("*.kv")

    assert run(fresh(key_file=str(key)), prompt) == (LENGTH - 1, expected)
    assert run(fresh(key_file=str(other)), prompt) == (0, expected)
    assert not file.exists()

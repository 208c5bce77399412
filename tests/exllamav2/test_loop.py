"""What is ExLlamaV2's own: pages, reservations, drafts, adapters, formats of the folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.backplane.errors import FleetError
from services.neuron.engine import (
    Constraint,
    ConstraintKind,
    Engine,
    LoadFailed,
    LoadPlan,
    LoadStep,
    StopParams,
)
from services.neuron.engines import create_engine
from services.neuron.engines.exllamav2 import reception
from tests.contract.engine.driving import ended, ends, failed, run, started, step_until, submit
from tests.contract.engine.driving import tokens as tokens_of
from tests.exllamav2 import folders
from tests.exllamav2.loading_models import load, said, task


@pytest.fixture(scope="module")
def engine() -> Engine:
    return create_engine("exllamav2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folders.build_random(tmp_path_factory.mktemp("models") / "random")


@pytest.fixture
def loaded(engine: Engine, folder: Path) -> Iterator[Any]:
    models: list[Any] = []

    def make(path: Path = folder, **fields: Any) -> Any:
        models.append(load(engine, path, **fields))
        return models[-1]

    yield make
    for model in models:
        model.close()


def test_the_backend_is_told(engine: Engine, loaded: Any) -> None:
    assert engine.facts["attention"] == "torch"
    assert loaded().info.facts["attention"] == "torch"


def test_a_load_tells_bytes_and_modules(engine: Engine, folder: Path) -> None:
    steps = engine.load(LoadPlan("i", "exllamav2", str(folder), max_context_tokens=512))
    seen: list[LoadStep] = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as done:
            done.value.close()
            break

    assert [step.modules_done for step in seen] == list(range(len(seen)))
    assert seen[-1].modules_done == seen[-1].modules_total
    assert seen[-1].bytes_done == seen[-1].bytes_total > 0


def test_a_long_output_goes_on_over_several_reservations(
    loaded: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loaded()
    (unbroken,) = said(model, task("a long tale ", tokens=300))
    monkeypatch.setattr(reception, "RESERVED_TOKENS", 70)

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


def test_at_most_two_prompts_are_read_at_a_time(loaded: Any) -> None:
    model = loaded(max_sequences=6)
    submit(model, *[task(chr(97 + n) * 1500, tokens=2) for n in range(6)])
    most = 0
    while model.has_work:
        model.step()
        most = max(most, sum(stream.is_prefilling for stream in model._running.values()))

    assert most == 2


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


def test_an_adapter_changes_what_is_said(loaded: Any, tmp_path: Path) -> None:
    (plain,) = said(loaded(), task("adapt "))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    random = np.random.default_rng(5)
    at = "base_model.model.model.layers.0.self_attn.q_proj"
    _save(
        adapter / "adapter_model.safetensors",
        {
            f"{at}.lora_A.weight": random.standard_normal((4, 64)),
            f"{at}.lora_B.weight": random.standard_normal((64, 4)),
        },
    )
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))

    (adapted,) = said(loaded(adapter_paths=(str(adapter),)), task("adapt "))

    assert adapted != plain


def test_a_missing_adapter_is_named(engine: Engine, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match="nowhere"):
        load(engine, folder, adapter_paths=(str(tmp_path / "nowhere"),))


def test_a_folder_of_transformers_5_is_read(loaded: Any, tmp_path: Path) -> None:
    rope = {"rope_theta": 500_000.0, "rope_type": "default"}
    old = folders.build_random(tmp_path / "old", rope_theta=500_000.0)
    new = folders.build_random(tmp_path / "new", rope_parameters=rope, dtype="float16")
    config = json.loads((new / "config.json").read_text())
    del config["rope_theta"], config["torch_dtype"]
    (new / "config.json").write_text(json.dumps(config))
    default = said(loaded(), task("where am I? " * 20))

    assert said(loaded(new), task("where am I? " * 20)) == said(
        loaded(old), task("where am I? " * 20)
    )
    assert said(loaded(old), task("where am I? " * 20)) != default


def test_vectors_are_normalised_and_differ(loaded: Any) -> None:
    model = loaded(embedding=True)

    one, two, again = model.embed([[5, 6, 7], [7, 6, 5], [5, 6, 7]])

    assert model.info.embedding_size == len(one) == 64
    assert abs(sum(value * value for value in one) - 1) < 1e-3
    assert one == again
    assert one != two
    assert model.stats().steps == 3


def test_pooling_is_the_models_own(loaded: Any, tmp_path: Path) -> None:
    place = folders.build_random(tmp_path / "pooled")
    (place / "1_Pooling").mkdir()
    config = place / "1_Pooling" / "config.json"
    vectors = {}
    for mode in ("mean_tokens", "cls_token", "lasttoken"):
        config.write_text(json.dumps({f"pooling_mode_{mode}": True}))
        vectors[mode] = loaded(place, embedding=True).embed([[9, 10, 11, 12]])[0]

    assert len({tuple(vector) for vector in vectors.values()}) == 3


def test_an_embedding_model_refuses_what_it_does_not_do(loaded: Any) -> None:
    model = loaded(embedding=True, max_context_tokens=512)

    assert failed(run(model, task("x"))).reason == "WRONG_MODALITY"
    with pytest.raises(FleetError, match="empty"):
        model.embed([[]])
    with pytest.raises(FleetError, match="512"):
        model.embed([[5] * 513])


def test_a_generator_makes_no_vectors(loaded: Any) -> None:
    with pytest.raises(FleetError, match="no embeddings"):
        loaded().embed([[1]])


def test_a_cut_short_file_is_refused_before_anything_is_loaded(
    engine: Engine, tmp_path: Path
) -> None:
    place = folders.build_random(tmp_path / "short")
    file = place / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])

    with pytest.raises(LoadFailed, match="its header says") as caught:
        load(engine, place)

    assert caught.value.reason == "MODEL_FILE_BAD"


def test_a_model_that_does_not_fit_is_refused_with_numbers(engine: Engine, folder: Path) -> None:
    with pytest.raises(LoadFailed, match=r"needs \d+ MiB .* 8192 MiB are free") as caught:
        load(engine, folder, cache_tokens=1 << 26)

    assert caught.value.reason == "OUT_OF_MEMORY"


def test_a_broken_grammar_midway_fails_its_stream_alone(loaded: Any) -> None:
    model = loaded(max_sequences=2)
    (unbroken,) = said(model, task("free "))
    free = task("free ")
    bound = task("bound ", constraint=Constraint(ConstraintKind.REGEX, "[a-z]{30}"))
    submit(model, free, bound)
    events = step_until(model, lambda events: len(tokens_of(events, bound)) >= 3)
    from services.neuron.generation.constraint import BadConstraintError

    model._streams[bound.task_id].job.constraint.error = BadConstraintError("too complex")
    events += step_until(model, lambda events: len(ends(events)) == 2)

    assert failed(events).reason == "BAD_CONSTRAINT"
    assert tokens_of(events, free) == unbroken


def test_a_constraint_outlives_a_reservation(loaded: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "RESERVED_TOKENS", 5)
    model = loaded()
    bound = task("x", constraint=Constraint(ConstraintKind.REGEX, "[ab]{17}c"), stop=StopParams())

    (ids,) = said(model, bound)

    text = bytes(i - 3 for i in ids).decode()
    assert len(text) == 18
    assert set(text[:17]) <= {"a", "b"}
    assert text[17] == "c"


def _save(file: Path, tensors: dict[str, Any]) -> None:
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(t, np.float16) for name, t in tensors.items()}, file)

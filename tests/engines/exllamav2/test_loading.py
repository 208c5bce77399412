"""What can be loaded, what it takes, and how far it is."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file, save_file

from services.neuron.engine_api.engine import Engine
from services.neuron.engine_api.model import LoadFailed, LoadPlan, LoadStep
from services.neuron.engines.exllamav2.files import weights
from services.neuron.engines.exllamav2.files.configuration import ModelFolder
from tests.contract.engine.driving import run, started
from tests.contract.engine.driving import tokens as tokens_of
from tests.engines.exllamav2 import folders, quantised_folders, towers
from tests.engines.exllamav2.loading_models import load, said, task

SEEING = towers.KINDS["Mistral 3"]


@pytest.mark.parametrize("kind", ["alone", "with a draft", "with a tower"])
def test_a_load_tells_bytes_and_modules(
    engine: Engine, folder: Path, tmp_path: Path, kind: str
) -> None:
    path = folder if kind != "with a tower" else towers.build(tmp_path / "t", SEEING)
    draft = str(folder) if kind == "with a draft" else None
    plan = LoadPlan("i", "exllamav2", str(path), max_context_tokens=512, draft_path=draft)
    steps = engine.load(plan)
    seen: list[LoadStep] = []
    while True:
        try:
            seen.append(next(steps))
        except StopIteration as done:
            model = done.value
            break

    parts = model._parts
    wholes = [whole for whole in (parts.tower, parts.draft_model, parts.model) if whole]
    assert len(wholes) == (1 if kind == "alone" else 2)
    assert seen[-1].modules_done == seen[-1].modules_total == sum(len(w.modules) for w in wholes)
    assert seen[-1].bytes_done == seen[-1].bytes_total > 0
    assert len({(step.bytes_total, step.modules_total) for step in seen}) == 1
    for before, after in itertools.pairwise(seen):
        assert 0 <= after.modules_done - before.modules_done <= 1
        assert after.bytes_done >= before.bytes_done
    model.close()


@pytest.mark.parametrize(("cache_format", "alike"), [("q8", 60), ("q6", 0), ("q4", 0)])
def test_a_quantised_cache_takes_what_was_estimated(
    loaded: Any, cache_format: str, alike: int
) -> None:
    plain, small = loaded(), loaded(cache_format=cache_format)
    prompts = ["once upon a time ", "x" * 300, "the the the "]

    expected = said(plain, *[task(prompt) for prompt in prompts])
    got = said(small, *[task(prompt) for prompt in prompts])
    events = run(small, again := task(prompts[1]))

    assert small.info.facts["cache"] == cache_format
    # With random weights a rounding error soon decides: only the finest format says the same.
    same = [a == b for e, g in zip(expected, got, strict=True) for a, b in zip(e, g, strict=True)]
    assert sum(same) >= alike
    assert (started(events).cached_tokens, tokens_of(events, again)) == (299, got[1])
    for model, name in ((plain, "fp16"), (small, cache_format)):
        cache = model._parts.cache
        elements = 2 * cache.max_seq_len * cache.num_key_value_heads * cache.head_dim * 2  # layers
        in_all = sum(tensor.nbytes for tensor in cache.all_tensors())
        assert in_all == elements * weights.BYTES_PER_ELEMENT[name]


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


@pytest.mark.parametrize("is_older", [True, False], ids=["its own", "those of Llama"])
def test_yi_is_read_by_either_name_of_its_norms(
    loaded: Any, tmp_path: Path, is_older: bool
) -> None:
    place = folders.build_random(tmp_path / "yi", architectures=["YiForCausalLM"])
    if is_older:
        renamed = {
            name.replace("input_layernorm", "ln1").replace("post_attention_layernorm", "ln2"): value
            for name, value in load_file(place / "model.safetensors").items()
        }
        save_file(renamed, place / "model.safetensors")

    assert said(loaded(place), task("where am I? ")) == said(loaded(), task("where am I? "))


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


def test_attention_that_would_leave_something_out_is_refused_before_the_load(
    engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exllamav2 import ExLlamaV2Config

    def override(config: Any, *, quiet: bool) -> None:  # as for Gemma 2 and an old flash-attn
        assert quiet
        config.no_flash_attn = True

    monkeypatch.setattr(ExLlamaV2Config, "arch_compat_overrides", override)

    with pytest.raises(LoadFailed, match=r"soft caps .*ATTENTION=triton"):
        load(engine, folder)


@pytest.mark.parametrize(
    ("pack", "settings", "method"),
    [
        (quantised_folders.gptq, {"quant_method": "gptq", "bits": 4, "group_size": 32}, "gptq"),
        (quantised_folders.gptq_by_importance,
         {"quant_method": "gptq", "bits": 4, "desc_act": True}, "gptq"),
        (quantised_folders.exl2, {"quant_method": "exl2", "bits": 5.0}, "exl2"),
        (quantised_folders.exl2, {}, "exl2"),
    ],
    ids=["gptq", "gptq by importance", "exl2", "an old exl2"],
)  # fmt: skip
def test_quantised_weights_say_what_they_mean(
    loaded: Any, tmp_path: Path, pack: Any, settings: dict[str, Any], method: str
) -> None:
    # EXL2 sums in an order of its own; of few tokens hardly two are equally likely.
    folder = folders.build_random(tmp_path / "whole", said=8)
    small, dense = quantised_folders.write(folder, tmp_path / "small", pack, **settings)
    prompts = ["once upon a time ", "the the the ", "x"]
    expected = said(loaded(dense), *[task(prompt) for prompt in prompts])

    model = loaded(small)

    assert model.info.facts["quantisation"] == method
    assert said(model, *[task(prompt) for prompt in prompts]) == expected


@pytest.mark.parametrize("kind", ["plain", "tied", "tied exl2", "gptq", "exl2"])
def test_the_estimate_is_what_the_library_counts(loaded: Any, tmp_path: Path, kind: str) -> None:
    place = folders.build_random(tmp_path / "model")
    if kind.endswith("exl2"):
        place, _ = quantised_folders.write(place, tmp_path / "small", quantised_folders.exl2)
    elif kind == "gptq":
        place, _ = quantised_folders.write(
            place, tmp_path / "small", quantised_folders.gptq, quant_method="gptq", bits=4
        )
    elif kind == "tied":
        folders.tie(place)
    if kind == "tied exl2":  # EXL2 gives such a model a head nevertheless
        config = json.loads((place / "config.json").read_text())
        (place / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))

    model = loaded(place)._parts.model

    made = weights.footprint(
        weights.read(place), ModelFolder.read(place).geometry, cache_tokens=0,
        cache_format="fp16", max_input_tokens=256,
    )  # fmt: skip
    embedding, *others = model.modules
    assert made.host == embedding.weight_footprint()
    # EXL2: the library also counts an order that it computes itself.
    counted = sum(module.weight_footprint() for module in others)
    assert made.weights <= counted <= 1.01 * made.weights
    scratch = max(module.scratch_space_fixed() for module in model.modules)
    assert made.scratch >= (scratch if weights.read(place).quantisation else 0)

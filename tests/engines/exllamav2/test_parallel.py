"""Layers divided between two processes: the same tokens as one process says. The second is real."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from services.neuron.engine_api.engine import Engine
from services.neuron.engine_api.events import Delta, Started
from services.neuron.engine_api.model import LoadFailed
from services.neuron.engine_api.task import Constraint, ConstraintKind, Prompt
from services.neuron.engines.exllamav2.engine import ExLlamaV2Engine
from tests.contract.engine.driving import run, tokens
from tests.engines.exllamav2 import folders, quantised_folders
from tests.engines.exllamav2.loading_models import load, said, task

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the other rank is emulated")
GPUS = ("GPU-0", "GPU-1")
PROMPTS = ["once upon a time", "the end of the road", "x" * 700]
SIZES: Any = {"max_context_tokens": 1024, "max_sequences": 4}


@pytest.fixture(scope="module")
def ranks() -> Iterator[Callable[..., Any]]:
    """Loads models divided between this process and another; what is loaded is closed behind."""
    models: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        # The other process is a Python of its own, which finds the emulation so.
        root = Path(__file__).parents[3]
        paths = [Path(__file__).parent / "emulated", root, root / "protos"]
        patch.setenv("PYTHONPATH", ":".join(map(str, paths)))
        engine = ExLlamaV2Engine.open(GPUS)

        def make(folder: Path, **fields: Any) -> Any:
            models.append(load(engine, folder, **{**SIZES, **fields}))
            return models[-1]

        yield make
    for model in models:
        with contextlib.suppress(AttributeError):  # closed by its test
            model.close()
    engine.stop_ranks()


def llama(folder: Path) -> Path:
    return folders.build_random(folder, said=8, heads=(8, 4))


def tied(folder: Path) -> Path:
    folders.tie(llama(folder))
    return folder


def gptq(folder: Path) -> Path:
    source = llama(folder.with_name("source"))
    return quantised_folders.write(
        source, folder, quantised_folders.gptq, quant_method="gptq", bits=4, group_size=32
    )[0]


def with_biases(folder: Path) -> Path:
    names = ["q_proj", "k_proj", "v_proj", "o_proj"]
    return _changed(
        llama(folder), names, lambda width: (width,), attention_bias=True, mlp_bias=False
    )


def qwen2(folder: Path) -> Path:
    names = ["q_proj", "k_proj", "v_proj"]
    architecture = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"}
    return _changed(llama(folder), names, lambda width: (width,), **architecture)


def mistral(folder: Path) -> Path:
    return folders.build_random(folder, said=8, heads=(8, 4), architectures=["MistralForCausalLM"])


def granite(folder: Path) -> Path:
    return folders.build_random(
        folder, said=8, heads=(8, 4), architectures=["GraniteForCausalLM"], model_type="granite",
        residual_multiplier=0.5, embedding_multiplier=2.0, logits_scaling=2.0,
        attention_multiplier=0.2,
    )  # fmt: skip


def _changed(
    folder: Path, biased: Sequence[str], size: Callable[[int], Any], **config: Any
) -> Path:
    file, random = folder / "model.safetensors", np.random.default_rng(5)
    tensors = load_file(file)
    for name in list(tensors):
        if name.split(".")[-2] in biased:
            values = random.standard_normal(size(tensors[name].shape[0])) * 0.3
            tensors[name.replace(".weight", ".bias")] = values.astype(np.float16)
    save_file(tensors, file)
    known = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**known, **config}))
    return folder


@pytest.mark.parametrize("make", [llama, tied, gptq, with_biases, qwen2, mistral, granite])
def test_two_ranks_say_what_one_says(engine: Engine, ranks, tmp_path, make) -> None:
    folder = make(tmp_path / "model")
    one = load(engine, folder, **SIZES)
    expected = said(one, *map(task, PROMPTS))
    one.close()

    two = ranks(folder)

    assert said(two, *map(task, PROMPTS)) == expected
    assert two.info.facts["parallel"] == "tensor, 2 ranks"
    assert sorted(two.info.memory_bytes) == sorted(GPUS)


def test_drafts_are_checked_by_all_ranks(engine: Engine, ranks, tmp_path) -> None:
    folder = llama(tmp_path / "model")
    one = load(engine, folder, ngram_draft=True, **SIZES)
    expected = said(one, *map(task, PROMPTS))
    one.close()

    assert said(ranks(folder, ngram_draft=True), *map(task, PROMPTS)) == expected


def test_quantised_caches_are_divided_too(engine: Engine, ranks, tmp_path) -> None:
    folder = llama(tmp_path / "model")
    one = load(engine, folder, cache_format="q8", **SIZES)
    two = ranks(folder, cache_format="q8")

    # Quantising turns the rounding of a sum into a step, and near ties the other way.
    expected, found = (_first_choices(model) for model in (one, two))

    assert found == pytest.approx(expected, abs=0.1)
    one.close()


def _first_choices(model: Any) -> dict[int, float]:
    asked = task("once upon a time", tokens=1, top_logprobs=8)
    (delta,) = [event for event in run(model, asked) if isinstance(event, Delta)]
    return {each.token_id: each.logprob for each in delta.logprobs[0].alternatives}


def test_the_beginning_of_a_page_is_copied_on_every_rank(ranks, tmp_path) -> None:
    model = ranks(llama(tmp_path / "model"))
    prompt = "y" * 100
    fresh = said(model, task(prompt + "abc"))
    said(model, task(prompt + "xyz"))

    again = task(prompt + "abd")
    events = run(model, again)

    (started,) = [event for event in events if isinstance(event, Started)]
    assert 90 < started.cached_tokens < 110
    assert said(model, task(prompt + "abc")) == fresh


def test_an_exception_beside_the_passes_costs_no_rank(ranks, tmp_path) -> None:
    model = ranks(llama(tmp_path / "model"))
    expected = said(model, *map(task, PROMPTS))
    generator, calls = model._generator, itertools.count()
    iterate = generator.iterate

    def iterate_and_fail() -> Any:
        made = iterate()
        if next(calls) == 4:
            raise ValueError("of sampling, say")
        return made

    generator.iterate = iterate_and_fail

    assert said(model, *map(task, PROMPTS)) == expected
    assert model._generator is not generator


def test_models_on_the_same_ranks_are_stepped_in_turn(engine: Engine, ranks, tmp_path) -> None:
    first = ranks(llama(tmp_path / "first"))
    expected = said(first, *map(task, PROMPTS))
    second = ranks(folders.build_random(tmp_path / "second", seed=9, said=8, heads=(4, 2)))

    told = said(second, task("hello"))
    second.close()

    assert said(first, *map(task, PROMPTS)) == expected
    one = load(engine, tmp_path / "second", **SIZES)
    assert said(one, task("hello")) == told
    one.close()


def test_log_probabilities_of_prompts_run_the_head_alone(engine: Engine, ranks, tmp_path) -> None:
    folder = llama(tmp_path / "model")
    one, two = load(engine, folder, **SIZES), ranks(folder)

    def read(model: Any) -> list[float]:
        asked = task("abcdefgh" * 8, tokens=1, top_logprobs=1, echo_prompt_logprobs=True)
        deltas = [event for event in run(model, asked) if isinstance(event, Delta)]
        return [entry.logprob for entry in deltas[0].logprobs]

    expected, found = read(one), read(two)

    assert len(found) == 64
    assert found == pytest.approx(expected, abs=0.05)
    one.close()


def test_a_constraint_and_its_log_probabilities_are_those_of_one(
    engine: Engine, ranks, tmp_path
) -> None:
    folder = llama(tmp_path / "model")
    one, two = load(engine, folder, **SIZES), ranks(folder)
    schema = '{"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}'

    def answered(model: Any) -> tuple[list[list[int]], list[float]]:
        asked = [
            task(f"{letter} ", tokens=16, top_logprobs=2, constraint=Constraint(kind, text))
            for letter, kind, text in (
                ("x", ConstraintKind.REGEX, "[a-h]{16}"),
                ("y", ConstraintKind.JSON_SCHEMA, schema),
            )
        ]
        events = run(model, *asked)
        deltas = [event for event in events if isinstance(event, Delta)]
        told = sorted(entry.logprob for delta in deltas for entry in delta.logprobs)
        return [tokens(events, each) for each in asked], told

    (expected, likely), (found, also_likely) = answered(one), answered(two)

    assert found == expected
    assert all(len(each) > 4 for each in found)
    assert also_likely == pytest.approx(likely, abs=0.05)
    one.close()


def test_embeddings_need_all_ranks_too(engine: Engine, ranks, tmp_path) -> None:
    folder = llama(tmp_path / "model")
    one, two = load(engine, folder, embedding=True, **SIZES), ranks(folder, embedding=True)
    ids = one.tokenize(Prompt(token_ids=(5, 6, 7, 8)))

    assert two.embed([ids])[0] == pytest.approx(one.embed([ids])[0], abs=0.01)
    one.close()


def without_a_matrix(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors")


def without_a_size(folder: Path) -> None:
    known = json.loads((folder / "config.json").read_text())
    del known["rms_norm_eps"]
    (folder / "config.json").write_text(json.dumps(known))


def without_a_tokeniser(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


@pytest.mark.parametrize("spoil", [without_a_matrix, without_a_size, without_a_tokeniser])
def test_a_folder_that_cannot_be_read_costs_no_rank(ranks, tmp_path, spoil) -> None:
    model = ranks(llama(tmp_path / "model"))
    expected = said(model, task("hello"))
    spoil(llama(tmp_path / "spoilt"))

    with pytest.raises(LoadFailed) as failed:
        ranks(tmp_path / "spoilt")

    assert failed.value.message
    assert said(model, task("hello")) == expected


def test_a_load_that_fails_on_every_rank_leaves_the_group_as_it_was(ranks, tmp_path) -> None:
    source = llama(tmp_path / "source")
    scattered, _ = quantised_folders.write(
        source, tmp_path / "scattered", quantised_folders.gptq_by_importance,
        quant_method="gptq", bits=4, group_size=32,
    )  # fmt: skip

    with pytest.raises(LoadFailed, match="desc_act"):
        ranks(scattered)

    assert said(ranks(source), task("hello"))

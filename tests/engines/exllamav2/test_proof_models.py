"""The models that the proof makes for itself load and speak."""

from pathlib import Path

from gpu import quantise
from services.neuron.engine_api.engine import Engine
from tests.engines.exllamav2 import folders
from tests.engines.exllamav2.loading_models import load, said, task


def test_a_random_llama_needs_no_other_models_tokeniser(engine: Engine, tmp_path: Path) -> None:
    place = tmp_path / "random"
    quantise.random_llama(
        place, layers=1, hidden=64, inner=128, heads=2, kv_heads=1, vocabulary=512, device="cpu",
        group=32,
    )  # fmt: skip

    model = load(engine, place)

    assert model.info.vocabulary_size == 512
    assert model.info.facts["quantisation"] == "gptq"
    assert len(said(model, task("any prompt", tokens=9))[0]) == 9
    model.close()


def test_a_rounded_copy_says_something_too(engine: Engine, tmp_path: Path) -> None:
    whole = folders.build_random(tmp_path / "whole", said=8)
    quantise.gptq_copy(whole, tmp_path / "rounded")

    model = load(engine, tmp_path / "rounded")

    assert model.info.facts["quantisation"] == "gptq"
    assert len(said(model, task("any prompt", tokens=9))[0]) == 9
    model.close()

"""Files that cannot be loaded, each told in llama.cpp's own words."""

from pathlib import Path
from typing import Any

import pytest

from services.neuron.engine_api.model import LoadFailed, Offload
from tests.doubles import random_llama, scripted, tiny_bert
from tests.unit.neuron.engines.llamacpp.conftest import LoadModel


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return scripted.build(tmp_path / "good.gguf")


def refuse(load: LoadModel, path: Path, **plan: object) -> LoadFailed:
    with pytest.raises(LoadFailed) as caught:
        load(path, **plan)
    assert path.name in caught.value.message
    return caught.value


def test_a_file_that_is_no_gguf(load: LoadModel, tmp_path: Path) -> None:
    path = tmp_path / "notes.gguf"
    path.write_text("not a model at all")

    error = refuse(load, path)

    assert error.reason == "MODEL_FILE_BAD"
    assert "invalid magic" in error.message


def test_an_empty_file(load: LoadModel, tmp_path: Path) -> None:
    path = tmp_path / "empty.gguf"
    path.touch()

    assert refuse(load, path).reason == "MODEL_FILE_BAD"


@pytest.mark.parametrize("keep", [0.2, 0.6, 0.99])
def test_a_truncated_file(load: LoadModel, good: Path, keep: float) -> None:
    data = good.read_bytes()
    good.write_bytes(data[: int(len(data) * keep)])

    error = refuse(load, good)

    assert error.reason == "MODEL_FILE_BAD"
    assert len(error.message) > len("llama.cpp cannot load good.gguf: ")


def test_an_unknown_architecture(load: LoadModel, good: Path) -> None:
    good.write_bytes(good.read_bytes().replace(b"llama", b"zzzzz", 3))

    error = refuse(load, good)

    assert error.reason == "MODEL_FILE_BAD"
    assert "zzzzz" in error.message


def test_weights_that_are_no_numbers(load: LoadModel, tmp_path: Path) -> None:
    path = random_llama.build(tmp_path / "nan.gguf", nan=True)

    error = refuse(load, path)

    assert error.reason == "MODEL_FILE_BAD"
    assert "invalid data" in error.message


def test_a_folder(load: LoadModel, tmp_path: Path) -> None:
    assert "folder" in refuse(load, tmp_path).message


def test_an_embedding_model_asked_to_generate(load: LoadModel, tmp_path: Path) -> None:
    error = refuse(load, tiny_bert.build(tmp_path / "bert.gguf"))

    assert error.reason == "LOAD_FAILED"
    assert "embedding" in error.message


@pytest.mark.parametrize(
    ("field", "value"),
    [("draft_path", "d.gguf"), ("ngram_draft", True), ("adapter_paths", ("a.gguf",))],
)
def test_what_the_engine_does_not_do(
    load: LoadModel, good: Path, field: str, value: object
) -> None:
    with pytest.raises(LoadFailed, match=field):
        load(good, **{field: value})


def test_a_good_file_loads_after_bad_ones(load: LoadModel, good: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + b"\xff" * 64)
    refuse(load, bad)

    assert load(good).info.architecture == "llama"


def test_a_model_in_several_files_is_loaded_by_its_first(load: LoadModel, tmp_path: Path) -> None:
    first = random_llama.build(tmp_path / "split.gguf", tensors_per_file=8)
    assert len(list(tmp_path.glob("split-*.gguf"))) > 1

    assert load(first).info.architecture == "llama"


def test_a_model_that_misses_a_file_is_refused(load: LoadModel, tmp_path: Path) -> None:
    first = random_llama.build(tmp_path / "split.gguf", tensors_per_file=8)
    max(tmp_path.glob("split-*.gguf")).unlink()

    assert refuse(load, first).reason == "MODEL_FILE_BAD"


def test_a_load_stays_within_the_memory_that_its_plan_leaves_it(
    load: LoadModel, good: Path
) -> None:
    sequence = 4096 * 2 * 128 * 2
    spare = 2 << 20  # more than logits and activations take, less than they and one sequence
    rest = good.stat().st_size + spare

    assert load(good, memory_bytes=rest + 2 * sequence).info.max_sequences == 2
    assert load(good).info.max_sequences == 4
    with pytest.raises(LoadFailed) as caught:
        load(good, memory_bytes=rest + 2 * sequence, max_sequences=4)
    assert caught.value.reason == "OUT_OF_MEMORY"


def test_what_is_larger_than_all_that_is_free_is_refused_before_it_is_read(
    load: LoadModel, good: Path
) -> None:
    with pytest.raises(LoadFailed, match="on all devices together") as caught:
        load(good, memory_bytes=good.stat().st_size - 1)

    assert caught.value.reason == "OUT_OF_MEMORY"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"offload": Offload(flash_attention=False)}, "quantized V cache requires flash_attn"),
        ({}, "block size 32 does not divide n_embd_head_k=16"),
    ],
)
def test_a_cache_format_that_does_not_go_is_no_lack_of_memory(
    load: LoadModel, tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    build = scripted.build if fields else random_llama.build
    path = build(tmp_path / "m.gguf")

    with pytest.raises(LoadFailed, match=words) as failed:
        load(path, cache_format="q8", **fields)

    assert failed.value.reason == "LOAD_FAILED"
    assert load(path).info.architecture == "llama"

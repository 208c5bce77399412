import dataclasses
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from services.neuron.engine_api.model import LoadFailed, LoadPlan
from services.neuron.engines.exllamav2.files import weights
from services.neuron.engines.exllamav2.files.geometry import Geometry
from services.neuron.engines.exllamav2.files.weights import TensorSizes
from services.neuron.engines.exllamav2.model import sizing

GEOMETRY = Geometry(
    layers=32, hidden=4096, intermediate=14336, heads=32, kv_heads=8, head_dim=128,
    vocabulary=128_256, context=8192,
)  # fmt: skip
EIGHT_BILLION = TensorSizes(
    {"model.embed_tokens.weight": 1 << 30, "lm_head.weight": 1 << 30, "rest": 3 << 30}
)
GIB = 1 << 30


def write(file: Path, header: Any, size: int) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))


def tensor(begin: int, end: int, dtype: str = "F16") -> dict[str, Any]:
    return {"dtype": dtype, "shape": [1], "data_offsets": [begin, end]}


def test_sizes_are_read_from_all_files(tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", {"__metadata__": {}, "model.embed_tokens.w": tensor(0, 8)}, 8)
    write(tmp_path / "b.safetensors", {"x": tensor(0, 4), "y": tensor(4, 12, "F32")}, 12)

    read = weights.read(tmp_path)

    assert (read.total, read.embedding) == (8 + 4 + 4, 8)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "cut short"),
        (b"\x00" * 4, "cut short"),
        (struct.pack("<Q", 1 << 40) + b"{}", "not a safetensors file"),
        (struct.pack("<Q", 2) + b"[]", "cannot be read"),
        (struct.pack("<Q", 4) + b"oops", "cannot be read"),
    ],
)
def test_files_that_are_none_are_refused(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "m.safetensors").write_bytes(content)

    with pytest.raises(LoadFailed, match=told):
        weights.read(tmp_path)


@pytest.mark.parametrize("size", [7, 9])
def test_missing_and_trailing_bytes_are_told(tmp_path: Path, size: int) -> None:
    write(tmp_path / "m.safetensors", {"x": tensor(0, 8)}, size)

    with pytest.raises(LoadFailed, match="its header says"):
        weights.read(tmp_path)


@pytest.mark.parametrize("entry", [tensor(8, 0), {"dtype": "F16"}, {**tensor(0, 8), "dtype": 3}])
def test_a_malformed_entry_is_refused(tmp_path: Path, entry: Any) -> None:
    write(tmp_path / "m.safetensors", {"x": entry}, 8)

    with pytest.raises(LoadFailed):
        weights.read(tmp_path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"no \.safetensors file"):
        weights.read(tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    write(tmp_path / "m-1.safetensors", {"x": tensor(0, 8)}, 8)
    index = {"weight_map": {"x": "m-1.safetensors", "y": "m-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))

    with pytest.raises(LoadFailed, match=r"1 weight files are missing: m-2\.safetensors"):
        weights.read(tmp_path)


def test_a_broken_index_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "m.safetensors", {"x": tensor(0, 8)}, 8)
    (tmp_path / "model.safetensors.index.json").write_text("{}")

    with pytest.raises(LoadFailed, match="cannot be read"):
        weights.read(tmp_path)


@pytest.mark.parametrize(
    ("cache_format", "gib"), [("fp16", 1.0), ("q8", 0.53125 + 0.03125), ("q4", 0.28125 + 0.03125)]
)
def test_a_cache_of_8192_tokens_of_llama_3_takes(cache_format: str, gib: float) -> None:
    size = weights.cache_bytes(GEOMETRY, tokens=8192, cache_format=cache_format)

    assert size == gib * GIB


@pytest.mark.parametrize(
    ("head", "gib"),
    [("lm_head.weight", 2), ("output.weight", 2), ("lm_head.q_weight", 2), ("", 3)],
)
def test_the_embedding_stays_in_host_memory_unless_it_is_the_head(head: str, gib: int) -> None:
    tensors = {"model.embed_tokens.weight": GIB, "rest": GIB, head or "more": GIB}

    made = weights.footprint(
        TensorSizes(tensors), GEOMETRY, cache_tokens=0, cache_format="fp16", max_input_tokens=2048
    )

    assert made.weights == gib * GIB
    assert made.total > made.weights


@pytest.mark.parametrize(
    ("tensor", "method"),
    [("a.weight", ""), ("a.q_weight", "exl2"), ("a.qweight", "gptq")],
)
def test_the_tensors_tell_how_they_are_quantised(tensor: str, method: str) -> None:
    assert TensorSizes({tensor: 1}).quantisation == method


@pytest.mark.parametrize("dtype", ["F8_E4M3", "U8", "F64"])
def test_a_type_that_the_library_does_not_read_is_named(tmp_path: Path, dtype: str) -> None:
    write(tmp_path / "m.safetensors", {"x.weight": tensor(0, 8, dtype)}, 8)

    with pytest.raises(LoadFailed, match=f"x.weight is of type {dtype}"):
        weights.read(tmp_path)


def test_a_buffer_of_another_type_is_nobodys_business(tmp_path: Path) -> None:
    write(tmp_path / "m.safetensors", {"vision.position_ids": tensor(0, 8, "I64")}, 8)

    assert weights.read(tmp_path).total == 8


def settle(free: int, **plan: Any) -> sizing.Shape:
    wanted = LoadPlan("i", "exllamav2", "x", **plan)
    return sizing.settle(wanted, GEOMETRY, EIGHT_BILLION, free_bytes=free, devices=1)


def test_all_sequences_get_their_whole_context_where_it_fits() -> None:
    shape = settle(80 * GIB)

    assert (shape.context_tokens, shape.sequences, shape.cache_tokens) == (8192, 16, 16 * 8192)
    assert shape.draft_tokens == 0


def test_a_cache_of_its_own_size_fills_what_is_free() -> None:
    shape = settle(8 * GIB)

    assert 8192 < shape.cache_tokens < 16 * 8192
    assert shape.cache_tokens % 256 == 0


def test_a_quantised_cache_holds_more() -> None:
    assert settle(8 * GIB, cache_format="q4").cache_tokens > 3 * settle(8 * GIB).cache_tokens


def test_less_than_the_floor_is_refused_with_numbers() -> None:
    with pytest.raises(LoadFailed, match=r"needs \d+ MiB .* 4608 MiB are free") as caught:
        settle(int(4.5 * GIB))

    assert caught.value.reason == "OUT_OF_MEMORY"


def test_a_given_cache_bounds_the_context() -> None:
    shape = settle(80 * GIB, cache_tokens=1000)

    assert (shape.cache_tokens, shape.context_tokens) == (768, 768)


def test_drafts_get_room_behind_the_context() -> None:
    shape = settle(80 * GIB, ngram_draft=True, max_sequences=1000)

    assert shape.table_tokens >= shape.context_tokens + shape.draft_tokens
    assert shape.sequences * (1 + shape.draft_tokens) <= shape.input_tokens


def test_an_unknown_cache_format_names_the_known() -> None:
    with pytest.raises(LoadFailed, match="fp16, q8, q6, q4") as caught:
        settle(80 * GIB, cache_format="fp8")

    assert caught.value.reason == "LOAD_FAILED"


@pytest.mark.parametrize("cache_format", ["q8", "q6", "q4"])
def test_a_quantised_cache_needs_heads_of_whole_groups(cache_format: str) -> None:
    plan = LoadPlan("i", "exllamav2", "", cache_format=cache_format)
    odd = dataclasses.replace(GEOMETRY, head_dim=80)

    with pytest.raises(LoadFailed, match="multiple of 32; this model's are 80: use fp16") as caught:
        sizing.settle(plan, odd, EIGHT_BILLION, free_bytes=80 * GIB, devices=1)

    assert caught.value.reason == "LOAD_FAILED"


def test_a_draft_model_takes_its_share() -> None:
    plan = LoadPlan("i", "exllamav2", "x", draft_path="y")
    shared = sizing.settle(
        plan, GEOMETRY, EIGHT_BILLION, free_bytes=8 * GIB, devices=1,
        other_bytes_per_token=65_536, other_bytes=GIB,
    )  # fmt: skip

    assert shared.cache_tokens < settle(8 * GIB).cache_tokens


def test_a_quantised_head_counts_into_the_scratch() -> None:
    quantised = TensorSizes({"lm_head.weight": GIB, "x.qweight": 1})

    made = weights.footprint(
        quantised, GEOMETRY, cache_tokens=0, cache_format="fp16", max_input_tokens=2048
    )

    assert made.scratch >= 2 * 4096 * 128_256


def test_a_softcap_counts_its_scores() -> None:
    def scratch(*, has_softcap: bool) -> int:
        capped = dataclasses.replace(GEOMETRY, has_softcap=has_softcap)
        return weights.footprint(
            EIGHT_BILLION, capped, cache_tokens=0, cache_format="fp16", max_input_tokens=2048
        ).scratch

    assert scratch(has_softcap=True) - scratch(has_softcap=False) >= 12 * 32 * 2048**2 * 3 // 4

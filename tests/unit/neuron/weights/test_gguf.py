from __future__ import annotations

import dataclasses
import pathlib
import struct

import pytest
from gguf import GGUFWriter, PoolingType
from hypothesis import given
from hypothesis import strategies as st

from services.neuron.weights import gguf, untrusted
from services.neuron.weights.gguf_reader import BadGgufError
from tests.doubles import hostile_models, scripted, tiny_bert


@pytest.fixture
def model(tmp_path: pathlib.Path) -> pathlib.Path:
    return scripted.build(tmp_path / "m.gguf", scripted.Script(context=777, width=64))


def test_a_real_file_tells_its_facts(model):
    header = gguf.read(model)

    # keys and values of one layer, 4 heads of 16 numbers, two bytes each
    cache = 2 * 1 * 4 * (16 + 16)
    assert ("blk.0.attn_q.weight", 64 * 64 * 2) in header.tensors
    assert dataclasses.replace(header, tensors=()) == gguf.GgufHeader(
        architecture="llama",
        max_context_tokens=777,
        cache_bytes_per_token=cache,
        is_embedder=False,
        layers=1,
        quantization="F16",
        has_chat_template=True,
        whole_bytes=model.stat().st_size,
    )


@pytest.mark.parametrize(("template", "chats"), [("", False), (" \n\t", False), ("x", True)])
def test_a_template_that_says_nothing_is_none(tmp_path, template, chats):
    path = scripted.build(tmp_path / "m.gguf", scripted.Script(chat_template=template))

    assert gguf.read(path).has_chat_template is chats


@pytest.mark.parametrize("length", [0, 3, 4, 8, 23, 24, 40, 100])
def test_a_file_that_ends_within_its_header_is_bad(model, length):
    model.write_bytes(model.read_bytes()[:length])

    with pytest.raises(BadGgufError) as bad:
        gguf.read(model)

    assert "m.gguf" in str(bad.value)


def head(version: int = 3, keys: int = 1) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, 0, keys)


def key(name: bytes, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PK\x03\x04" + b"x" * 40, "does not begin with GGUF"),
        (head(version=99), "version 99"),
        (head(keys=1 << 40), "keys and 0 tensors cannot be true"),
        (head() + struct.pack("<Q", 1 << 40), "cannot be true"),
        (head() + key(b"k", 77, b""), "type 77"),
        (head() + key(b"k", 4, b"\1\0\0\0"), "names no architecture"),
        (head() + key(b"\xff\xfe", 4, b"\1\0\0\0"), "no GGUF file"),
        (head() + key(b"k", 9, struct.pack("<IQ", 4, 1 << 60)), "cannot be true"),
        (head() + key(b"k", 9, struct.pack("<IQ", 4, 1 << 10)), "cut off"),
    ],
)
def test_what_cannot_be_a_header_is_told(tmp_path, data, words):
    path = tmp_path / "m.gguf"
    path.write_bytes(data)

    with pytest.raises(BadGgufError, match=words):
        gguf.read(path)


@given(st.binary(max_size=200))
def test_noise_is_never_a_crash(tmp_path_factory, noise):
    path = tmp_path_factory.mktemp("noise") / "m.gguf"
    path.write_bytes(b"GGUF\x03\0\0\0" + noise)

    with pytest.raises(BadGgufError):
        gguf.read(path)


@pytest.mark.parametrize("name", hostile_models.GGUFS)
def test_a_hostile_gguf_file_is_bad(tmp_path: pathlib.Path, name: str) -> None:
    path = tmp_path / f"{name}.gguf"
    path.write_bytes(hostile_models.GGUFS[name])

    with pytest.raises(BadGgufError):
        gguf.read(path)


def test_reading_a_file_has_a_time_limit(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = scripted.build(tmp_path / "slow.gguf")
    monkeypatch.setattr(
        untrusted.ReadDeadline, "__init__", lambda self: setattr(self, "_ends_at", 0.0)
    )

    with pytest.raises(BadGgufError, match="takes too long"):
        gguf.read(path)


@pytest.mark.parametrize(
    ("architecture", "kind", "told"),
    [
        ("clip", "mmproj", "a vision projector"),
        ("clip", "", "a vision projector"),
        ("llama", "adapter", "a LoRA adapter"),
        ("llama", "imatrix", "an importance matrix"),
    ],
)
def test_what_goes_with_a_model_is_none_however_it_is_called(tmp_path, architecture, kind, told):
    path = tmp_path / "qwen-vl-7b-Q8_0.gguf"
    writer = GGUFWriter(path, architecture)
    if kind:
        writer.add_string("general.type", kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()

    with pytest.raises(BadGgufError, match=f"{path.name} cannot be served: it is {told}"):
        gguf.read(path)


def test_a_reranker_is_no_model_and_an_embedder_is(tmp_path):
    reranker = tiny_bert.build(tmp_path / "r.gguf", pooling=PoolingType.RANK)

    with pytest.raises(BadGgufError, match="it is a reranker"):
        gguf.read(reranker)
    assert gguf.read(tiny_bert.build(tmp_path / "e.gguf", pooling=PoolingType.CLS)).is_embedder


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"block_count": 0}, "0 layers cannot be true"),
        ({"block_count": 513}, "513 layers cannot be true"),
        ({"block_count": 2, "nextn_predict_layers": 3}, "more layers that predict"),
        ({"expert_count": 8}, "0 of 8 experts cannot be true"),
        ({"expert_count": 8, "expert_used_count": 9}, "9 of 8 experts cannot be true"),
        ({"expert_count": 1025, "expert_used_count": 1}, "1 of 1025 experts cannot be true"),
        ({"expert_used_count": 1}, "1 of 0 experts cannot be true"),
        ({"rope.dimension_count": 3}, "an odd number of dimensions"),
        ({"pooling_type": 5}, "how it pools is not known"),
        ({"block_count": 512, "expert_count": 1024, "expert_used_count": 1024}, ""),
    ],
)
def test_what_llama_cpp_would_end_its_process_at_is_refused_before(tmp_path, facts, told):
    path = tmp_path / "m.gguf"
    writer = GGUFWriter(path, "llama")
    for name, value in facts.items():
        writer.add_uint32(f"llama.{name}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()

    if not told:
        assert gguf.read(path).layers == 512
        return
    with pytest.raises(BadGgufError, match=told):
        gguf.read(path)


@pytest.mark.parametrize(
    ("facts", "heads"),
    [
        ({"attention.head_count_kv": 2}, 8 * 2),
        ({}, 8 * 4),
        ({"attention.head_count_kv": [0, 2, 0, 2, 0, 1, 0, 0]}, 5),
        ({"attention.head_count_kv": 2, "full_attention_interval": 4}, 2 * 2),
    ],
)
def test_layers_that_keep_no_keys_take_no_cache(tmp_path, facts, heads):
    path = tmp_path / "m.gguf"
    writer = GGUFWriter(path, "lfm2")
    given = {"block_count": 8, "embedding_length": 64, "attention.head_count": 4, **facts}
    for name, value in given.items():
        add = writer.add_array if isinstance(value, list) else writer.add_uint32
        add(f"lfm2.{name}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()

    # keys and values of 16 numbers, two bytes each
    assert gguf.read(path).cache_bytes_per_token == heads * 2 * 16 * 2


def test_a_pointer_of_git_lfs_says_how_to_get_the_file(tmp_path):
    path = tmp_path / "m.gguf"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")

    with pytest.raises(BadGgufError, match="git lfs pull"):
        gguf.read(path)

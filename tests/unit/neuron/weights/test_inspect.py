from __future__ import annotations

import functools
import hashlib
import json
import pathlib

import gguf
import pytest

from cortex.v1 import model_pb2 as model
from services.backplane.errors import FleetError, Reason
from services.neuron.sources.hub import HubSource
from services.neuron.sources.resolver import Sources
from services.neuron.sources.source import PathSource, WeightSource
from services.neuron.weights import inspect
from services.neuron.weights.listing import Listing
from tests.doubles import scripted


def no_bytes(done: int, total: int) -> None: ...


def sources(folder: pathlib.Path, **named: str) -> Sources:
    schemes: dict[str, WeightSource] = {
        "path": PathSource(),
        "hf": HubSource(folder, stall_seconds=1),
    }
    return Sources(schemes, named=named, folders=(folder,))


def safetensors(folder: pathlib.Path, config: object) -> pathlib.Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"x" * 100)
    return folder


@pytest.fixture
def several(tmp_path: pathlib.Path) -> pathlib.Path:
    for name in ("m.Q4_K_M.gguf", "m.Q8_0.gguf"):
        (tmp_path / "m").mkdir(exist_ok=True)
        scripted.build(tmp_path / "m" / name)
    return tmp_path


def test_a_file_is_called_as_itself(tmp_path):
    scripted.build(tmp_path / "bravo.gguf")

    found, problems = Listing([tmp_path]).now()

    assert list(found) == ["bravo"]
    assert found["bravo"].bytes == (tmp_path / "bravo.gguf").stat().st_size
    assert not problems


def test_broken_files_are_told_and_left_out(tmp_path):
    scripted.build(tmp_path / "good.gguf")
    (tmp_path / "bad.gguf").write_bytes(b"no")

    found, problems = Listing([tmp_path]).now()

    assert list(found) == ["good"]
    assert len(problems) == 1
    assert "bad.gguf" in problems[0]


def test_a_split_file_is_one_model(tmp_path, monkeypatch):
    in_parts = functools.partial(gguf.GGUFWriter, split_max_tensors=4)
    monkeypatch.setattr("tests.doubles.scripted.gguf.GGUFWriter", in_parts)
    scripted.build(tmp_path / "m.gguf")
    parts = sorted(tmp_path.glob("*.gguf"))

    found, problems = Listing([tmp_path]).now()

    assert len(parts) > 1
    assert list(found) == ["m"]
    assert found["m"].path == parts[0]
    assert found["m"].bytes == sum(part.stat().st_size for part in parts)
    assert not problems
    assert inspect.inspect(tmp_path).path == parts[0]
    parts[-1].unlink()
    with pytest.raises(FleetError, match="There is no file"):
        inspect.inspect(tmp_path)


@pytest.mark.parametrize(
    "projector", ["mmproj-tiny-f16.gguf", "MMPROJ.gguf", "tiny-mmproj-f16.gguf", "tiny.mmproj.gguf"]
)
def test_a_projector_is_no_model(tmp_path, projector):
    model = tmp_path / "tiny-f16.gguf"
    scripted.build(model)
    scripted.build(tmp_path / projector)

    assert inspect.inspect(tmp_path).path == model
    assert ["tiny-f16"] == list(Listing([tmp_path]).now()[0])


@pytest.mark.parametrize(
    ("name", "is_model"),
    [
        ("m-Q4_K_M.gguf", True),
        ("imatrix.gguf", False),
        ("imatrix_m.gguf", False),
        ("m-imatrix.gguf", False),
        ("m-imatrix-Q4_K_M.gguf", True),
        ("mmprojected.gguf", True),
        ("m-Q4_K_M.txt", False),
    ],
)
def test_a_name_tells_whether_a_file_is_a_model(name, is_model):
    assert inspect.is_model_file(name) == is_model


def test_links_that_lead_back_list_nothing_twice(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "broken.gguf").write_bytes(b"nothing")
    for link in (tmp_path / "self", tmp_path / "deep" / "up"):
        link.symlink_to(tmp_path)

    found, problems = Listing([tmp_path]).now()

    assert found == {}
    assert len(problems) == 1


def test_hidden_folders_are_not_entered_and_missing_ones_are_empty(tmp_path):
    (tmp_path / ".fetch-1").mkdir()
    scripted.build(tmp_path / ".fetch-1" / "half.gguf")

    assert Listing([tmp_path, tmp_path / "nowhere"]).now() == ({}, [])


def test_a_model_that_sees_is_measured_by_its_text_part(tmp_path):
    text = {
        "architectures": ["TextModel"], "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "hidden_size": 64, "max_position_embeddings": 2048,
    }  # fmt: skip
    config = {"architectures": ["Qwen2VLForConditionalGeneration"], "text_config": text}
    safetensors(tmp_path / "vl", config)

    found = Listing([tmp_path]).now()[0]["vl"]

    assert found.architecture == "Qwen2VLForConditionalGeneration"
    assert (found.max_context_tokens, found.cache_bytes_per_token) == (2048, 2 * 2 * 2 * 16 * 2)


def test_a_folder_of_safetensors_is_a_model(tmp_path):
    config = {
        "architectures": ["LlamaForCausalLM"],
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_size": 64,
        "max_position_embeddings": 2048,
    }
    safetensors(tmp_path / "org" / "llama", config)

    found, _ = Listing([tmp_path]).now()

    assert found["llama"].format == "safetensors"
    assert found["llama"].max_context_tokens == 2048
    assert found["llama"].cache_bytes_per_token == 2 * 2 * 2 * 16 * 2


@pytest.mark.parametrize("method", ["exl2", "gptq"])
def test_quantised_folders_say_how(tmp_path, method):
    safetensors(tmp_path / "q", {"quantization_config": {"quant_method": method}})

    assert inspect.inspect(tmp_path / "q").format == method


def test_a_file_is_described_for_listings(tmp_path):
    scripted.build(tmp_path / "bravo.gguf")

    (told,) = (inspect.described(name, one) for name, one in Listing([tmp_path]).now()[0].items())

    assert told.quantization == "F16"
    assert told.modified_at.ToNanoseconds() == (tmp_path / "bravo.gguf").stat().st_mtime_ns
    assert len(told.fingerprint) == 64


def test_numbers_are_counted_in_plain_safetensors_and_not_in_quantised_ones(tmp_path):
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "BF16", "shape": [1000, 2000], "data_offsets": [0, 4_000_000]},
        "b": {"dtype": "F32", "shape": [], "data_offsets": [4_000_000, 4_000_004]},
    }
    text = json.dumps(header).encode()
    for name, config in {
        "plain": {"torch_dtype": "bfloat16"},
        "packed": {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    }.items():
        folder = safetensors(tmp_path / name, config)
        (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)

    plain, packed = (inspect.inspect(tmp_path / name) for name in ("plain", "packed"))

    assert (plain.parameter_size, plain.quantization) == ("2M", "BF16")
    assert (packed.parameter_size, packed.quantization) == ("", "4bit")


def test_files_that_went_while_they_were_listed_are_described_without_their_content(tmp_path):
    scripted.build(tmp_path / "m.gguf")
    found = inspect.inspect(tmp_path / "m.gguf")
    (tmp_path / "m.gguf").unlink()

    assert inspect.described("m", found).fingerprint == ""


def test_a_bert_folder_embeds(tmp_path):
    config = {"architectures": ["BertModel"], "model_type": "bert", "max_position_embeddings": 512}
    safetensors(tmp_path / "b", config)

    found = inspect.inspect(tmp_path / "b")

    assert (found.format, found.is_embedder, found.max_context_tokens) == ("bert", True, 512)
    assert found.cache_bytes_per_token == 0


@pytest.mark.parametrize("config", ["{", "[]", '{"num_hidden_layers": "many"}'])
def test_a_broken_config_is_a_bad_model(tmp_path, config):
    safetensors(tmp_path / "q", config)

    with pytest.raises(FleetError) as bad:
        inspect.inspect(tmp_path / "q")

    assert bad.value.reason is Reason.MODEL_FILE_BAD


def test_quant_chooses_among_files(several):
    assert inspect.inspect(several / "m", quant="q8_0").path.name == "m.Q8_0.gguf"


@pytest.mark.parametrize("quant", ["", "Q2", "m."])
def test_an_ambiguous_quant_names_the_files(several, quant):
    with pytest.raises(FleetError) as refused:
        inspect.inspect(several / "m", quant=quant)

    assert refused.value.field == "spec.quant"
    assert "m.Q4_K_M.gguf, m.Q8_0.gguf" in refused.value.message


def test_an_empty_folder_is_no_model(tmp_path):
    with pytest.raises(FleetError) as bad:
        inspect.inspect(tmp_path)

    assert bad.value.reason is Reason.MODEL_FILE_BAD


async def test_names_are_found_in_settings_first_then_on_disk(tmp_path):
    scripted.build(tmp_path / "bravo.gguf")
    elsewhere = scripted.build(tmp_path / "other.gguf")
    made = sources(tmp_path, bravo=f"path:{elsewhere}")

    named = await made.resolve(model.LoadSpec(model="bravo"), no_bytes)
    found = await made.resolve(model.LoadSpec(model="other"), no_bytes)

    assert named.path == found.path == elsewhere


async def test_a_folder_with_several_files_is_a_name_too(several):
    found = await sources(several).resolve(model.LoadSpec(model="m", quant="Q4_K_M"), no_bytes)

    assert found.path.name == "m.Q4_K_M.gguf"


@pytest.mark.parametrize("name", ["../m", "nothing", "\0", "x" * 5_000])
async def test_a_name_never_leads_out_of_the_folders(several, name):
    with pytest.raises(FleetError) as missing:
        await sources(several / "m").resolve(model.LoadSpec(model=name), no_bytes)

    assert missing.value.reason is Reason.MODEL_UNKNOWN


@pytest.mark.parametrize("path", ["\0", "x" * 5_000, "~nobody-lives-here/m"])
async def test_what_no_disk_can_hold_is_no_source(tmp_path, path):
    with pytest.raises(FleetError) as refused:
        await sources(tmp_path).resolve(model.LoadSpec(model="m", source=f"path:{path}"), no_bytes)

    assert refused.value.reason is Reason.BAD_REQUEST
    assert refused.value.field == "spec.source"


async def test_a_digest_is_checked_with_progress(tmp_path):
    path = scripted.build(tmp_path / "m.gguf")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    spec = model.LoadSpec(model="m", source=f"path:{path}", sha256=digest.upper())
    seen: list[tuple[int, int]] = []

    await sources(tmp_path).resolve(spec, lambda done, total: seen.append((done, total)))

    assert seen[-1] == (path.stat().st_size, path.stat().st_size)


async def test_a_source_that_names_its_digest_is_checked(tmp_path):
    path = scripted.build(tmp_path / "m.gguf")
    own = hashlib.sha256(path.read_bytes()).hexdigest()
    made = sources(tmp_path, good=f"path:{path}#sha256={own}", bad=f"path:{path}#sha256={'0' * 64}")

    good = await made.resolve(model.LoadSpec(model="good"), lambda *_: None)

    assert good.path == path
    for name, text in (("bad", ""), ("m", "0" * 64)):  # found by name, it is checked too
        with pytest.raises(FleetError) as caught:
            await made.resolve(model.LoadSpec(model=name, sha256=text), lambda *_: None)
        assert caught.value.reason is Reason.MODEL_FILE_BAD
    assert made.find(model.LoadSpec(model="bad")) is not None  # a listing reads no whole files


async def test_an_adapters_digest_is_that_of_its_folder(tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"a")
    own = hashlib.sha256(b"a").hexdigest()
    listed = hashlib.sha256(f"{own}  adapter_model.safetensors\n".encode()).hexdigest()
    made = sources(tmp_path)

    assert await made.path(f"path:{adapter}#sha256={listed}", "", lambda *_: None) == adapter
    with pytest.raises(FleetError, match="has the digest"):
        await made.path(f"path:{adapter}#sha256={own}", "", lambda *_: None)


def test_the_listing_shows_named_models_that_are_here(tmp_path):
    path = scripted.build(tmp_path / "m.gguf")
    made = sources(
        tmp_path, alias=f"path:{path}", gone="path:/nowhere.gguf", far="hf:a/b@main", odd="x"
    )

    stored, problems = made.listing()

    assert {one.model for one in stored} == {"m", "alias"}
    assert all(one.format == "gguf" and one.architecture == "llama" for one in stored)
    assert len(problems) == 2

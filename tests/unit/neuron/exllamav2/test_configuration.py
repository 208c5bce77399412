import json
from pathlib import Path
from typing import Any

import pytest

from services.neuron.engine import LoadFailed, SamplingParams
from services.neuron.engines.exllamav2.configuration import ModelFolder, legacy

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
    "max_position_embeddings": 512,
}


def folder(path: Path, files: dict[str, Any] | None = None, **config: Any) -> ModelFolder:
    (path / "config.json").write_text(json.dumps({**CONFIG, **config}))
    (path / "tokenizer.json").write_text("{}")
    for name, content in (files or {}).items():
        (path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return ModelFolder.read(path)


def test_sizes_have_the_librarys_defaults(tmp_path: Path) -> None:
    geometry = folder(tmp_path).geometry

    assert (geometry.kv_heads, geometry.head_dim, geometry.intermediate) == (4, 16, 256)
    assert (geometry.context, geometry.tied) == (512, False)


def test_sizes_of_a_model_that_sees_are_those_of_its_text_part(tmp_path: Path) -> None:
    text = {"hidden_size": 128, "head_dim": 8}
    read = folder(tmp_path, text_config=text, vision_config={"model_type": "pixtral"})

    assert (read.geometry.hidden, read.geometry.head_dim) == (128, 8)
    assert read.has_vision


def test_a_missing_size_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"config\.json: vocab_size: missing"):
        _ = folder(tmp_path, vocab_size=None).geometry


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"architectures": ["GptOssForCausalLM"]}, "does not implement GptOssForCausalLM"),
        ({"architectures": []}, "architectures: want exactly one"),
        ({"architectures": None}, "architectures: want exactly one"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantised by awq"),
    ],
)
def test_what_the_library_would_load_wrongly_is_refused(
    tmp_path: Path, config: dict[str, Any], told: str
) -> None:
    with pytest.raises(LoadFailed, match=told) as caught:
        folder(tmp_path, **config)

    assert caught.value.reason == "MODEL_FILE_BAD"


@pytest.mark.parametrize("method", ["exl2", "gptq"])
def test_known_quantisations_are_taken(tmp_path: Path, method: str) -> None:
    assert folder(tmp_path, quantization_config={"quant_method": method}).quantisation == method


def test_a_missing_tokeniser_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))

    with pytest.raises(LoadFailed, match=r"tokenizer\.json is missing"):
        ModelFolder.read(tmp_path)


@pytest.mark.parametrize("content", ["{not json", "[1]"])
def test_a_broken_file_is_named(tmp_path: Path, content: str) -> None:
    with pytest.raises(LoadFailed, match=r"generation_config\.json"):
        folder(tmp_path, {"generation_config.json": content})


def test_a_folder_without_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(LoadFailed, match=r"config\.json: missing"):
        ModelFolder.read(tmp_path)


def test_all_end_tokens_are_found(tmp_path: Path) -> None:
    files = {"generation_config.json": {"eos_token_id": [7, 8]}}

    assert folder(tmp_path, files, eos_token_id=9).eos_token_ids == (7, 8, 9)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, None),
        ({"eos_token_id": 2}, None),
        ({"do_sample": False, "temperature": 0.7}, SamplingParams(temperature=0.0)),
        ({"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95},
         SamplingParams(temperature=0.6, top_k=20, top_p=0.95)),
        ({"repetition_penalty": 1.05}, SamplingParams(repetition_penalty=1.05)),
    ],
)  # fmt: skip
def test_advice_on_sampling_is_read(
    tmp_path: Path, given: dict[str, Any], expected: SamplingParams | None
) -> None:
    assert folder(tmp_path, {"generation_config.json": given}).default_sampling == expected


@pytest.mark.parametrize(
    ("files", "template"),
    [
        ({}, None),
        ({"chat_template.jinja": "file"}, "file"),
        ({"tokenizer_config.json": {"chat_template": "inline"}}, "inline"),
        ({"chat_template.json": {"chat_template": "json"}}, "json"),
        ({"tokenizer_config.json": {"chat_template": [
            {"name": "rag", "template": "no"}, {"name": "default", "template": "yes"}]}}, "yes"),
    ],
)  # fmt: skip
def test_the_template_is_found_wherever_it_lies(
    tmp_path: Path, files: dict[str, Any], template: str | None
) -> None:
    assert folder(tmp_path, files).chat_template == template


@pytest.mark.parametrize(
    ("new", "old"),
    [
        ({"rope_theta": 1e6}, {"rope_theta": 1e6}),
        ({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}},
         {"rope_theta": 1e6, "rope_scaling": None}),
        ({"rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", "factor": 8.0}},
         {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e6, "rope_type": "linear",
                                                 "factor": 8.0},
                              "sliding_attention": {"rope_theta": 1e4}}},
         {"rope_theta": 1e6, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}),
        ({"rope_scaling": {"type": "yarn", "rope_type": "yarn", "factor": 4.0}},
         {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),
        ({"rope_scaling": {"rope_type": "default", "type": "default", "mrope_section": [1, 2]}},
         {"rope_scaling": {"type": "mrope", "mrope_section": [1, 2]}}),
        ({"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5,
                              "rope_type": "default"}},
         {"rope_theta": 1e4, "partial_rotary_factor": 0.5, "rope_scaling": None}),
        ({"dtype": "bfloat16"}, {"torch_dtype": "bfloat16"}),
        ({"text_config": {"rope_parameters": {"rope_theta": 1e6}}},
         {"text_config": {"rope_theta": 1e6, "rope_scaling": None}}),
    ],
)  # fmt: skip
def test_new_keys_become_those_that_the_library_reads(
    new: dict[str, Any], old: dict[str, Any]
) -> None:
    assert legacy(new) == old


def test_old_files_stay_as_they_are() -> None:
    config = {**CONFIG, "rope_theta": 1e4, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}

    assert legacy(config) == config


def test_an_unknown_scaling_is_refused() -> None:
    with pytest.raises(LoadFailed, match="does not implement spiral"):
        legacy({"rope_scaling": {"rope_type": "spiral"}})

import json
from pathlib import Path
from typing import Any

import pytest

from services.neuron.engine_api.model import LoadFailed
from services.neuron.engine_api.task import SamplingParams
from services.neuron.engines.exllamav2.files.configuration import ModelFolder
from services.neuron.engines.exllamav2.files.legacy_config import legacy, legacy_preprocessor

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
    assert geometry.context == 512


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
        ({"architectures": ["Qwen3MoeForCausalLM"]}, "config.json: norm_topk_prob"),
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


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"bits": 8}, "GPTQ weights of 8 bits"),
        ({"bits": 4, "dynamic": {"+:.*down.*": {"bits": 2}}}, "GPTQ weights of 2 bits"),
        ({"bits": 4, "checkpoint_format": "marlin"}, "packed as marlin"),
    ],
)
def test_gptq_that_the_library_would_misread_is_refused(
    tmp_path: Path, settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(LoadFailed, match=told):
        folder(tmp_path, quantization_config={"quant_method": "gptq", **settings})


@pytest.mark.parametrize("packing", ["gptq", "gptq_v2", None])
def test_gptq_of_four_bits_is_taken(tmp_path: Path, packing: str | None) -> None:
    settings = {
        "quant_method": "gptq", "bits": 4, "checkpoint_format": packing,
        "dynamic": {"-:.*gate.*": {}},
    }  # fmt: skip

    assert folder(tmp_path, quantization_config=settings).quantisation == "gptq"


@pytest.mark.parametrize(
    ("config", "kv_heads"),
    [
        ({"num_key_value_heads": 2}, 2),
        ({"architectures": ["DbrxForCausalLM"], "attn_config": {"kv_n_heads": 1}}, 1),
        ({"architectures": ["GPTBigCodeForCausalLM"], "multi_query": True}, 1),
    ],
)
def test_key_heads_are_found_wherever_they_stand(
    tmp_path: Path, config: dict[str, Any], kv_heads: int
) -> None:
    assert folder(tmp_path, **config).geometry.kv_heads == kv_heads


def test_what_gemma_leaves_out_is_its_classs_default(tmp_path: Path) -> None:
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer.json").write_text("{}")

    geometry = ModelFolder.read(tmp_path).geometry

    assert (geometry.heads, geometry.kv_heads, geometry.head_dim) == (8, 4, 256)
    assert (geometry.context, geometry.vocabulary) == (131_072, 262_208)


def test_yarn_stretches_the_context(tmp_path: Path) -> None:
    rope = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}

    assert folder(tmp_path, rope_scaling=rope).geometry.context == 2048
    assert (
        folder(tmp_path, rope_scaling=rope, max_position_embeddings=2048).geometry.context == 2048
    )


def test_long_ropes_length_is_told_twice() -> None:
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 4096, "long_factor": [1.0]}

    made = legacy({"rope_parameters": {**rope, "rope_theta": 1e4}})

    assert made["original_max_position_embeddings"] == 4096
    assert made["rope_scaling"] == rope


FULL, SLIDING = "full_attention", "sliding_attention"


@pytest.mark.parametrize(
    ("architecture", "kinds", "pattern"),
    [
        ("Cohere2ForCausalLM", [SLIDING, SLIDING, SLIDING, FULL] * 2, 4),
        ("Gemma2ForCausalLM", [SLIDING, FULL] * 3, 2),
        ("Gemma3ForConditionalGeneration", [SLIDING] * 4, 6),
        ("Qwen3ForCausalLM", [FULL] * 4, None),
    ],
)
def test_the_pattern_of_windows_comes_from_the_layers(
    architecture: str, kinds: list[str], pattern: int | None
) -> None:
    for config in ({"layer_types": kinds}, {"text_config": {"layer_types": kinds}}):
        made = legacy({"architectures": [architecture], **config})

        assert made.get("sliding_window_pattern") == pattern


def test_a_model_without_windows_gets_none() -> None:
    made = legacy({"architectures": ["Gemma2ForCausalLM"], "layer_types": [FULL] * 4})

    assert made["sliding_window"] == 0


def test_windows_in_another_order_are_refused() -> None:
    config = {"architectures": ["Gemma2ForCausalLM"], "layer_types": [FULL, SLIDING]}

    with pytest.raises(LoadFailed, match="sliding windows in this order"):
        legacy(config)


def test_what_the_library_seeks_at_the_top_is_lifted_there() -> None:
    nested = {"eos_token_id": 7, "tie_word_embeddings": True, "hidden_size": 64}

    made = legacy({"tie_word_embeddings": False, "text_config": nested})

    assert made["eos_token_id"] == 7
    assert made["tie_word_embeddings"] is False
    assert "hidden_size" not in made


@pytest.mark.parametrize(
    ("preprocessor", "processor", "expected"),
    [
        (None, None, None),
        ({"image_processor_type": "PixtralImageProcessorFast"}, None,
         {"image_processor_type": "PixtralImageProcessor"}),
        (None, {"image_processor": {"image_processor_type": "Gemma3ImageProcessor"}},
         {"image_processor_type": "Gemma3ImageProcessor"}),
        ({"image_processor_type": "Qwen2VLImageProcessorFast",
          "size": {"shortest_edge": 3136, "longest_edge": 12_845_056}}, None,
         {"image_processor_type": "Qwen2VLImageProcessor", "min_pixels": 3136,
          "max_pixels": 12_845_056,
          "size": {"shortest_edge": 3136, "longest_edge": 12_845_056}}),
    ],
)  # fmt: skip
def test_the_image_processor_is_written_as_the_library_reads_it(
    preprocessor: dict[str, Any] | None,
    processor: dict[str, Any] | None,
    expected: dict[str, Any] | None,
) -> None:
    assert legacy_preprocessor(preprocessor, processor) == expected


def test_a_folder_says_what_must_be_rewritten(tmp_path: Path) -> None:
    old = folder(tmp_path)
    assert old.rewritten() == {}

    files = {"preprocessor_config.json": {"image_processor_type": "PixtralImageProcessorFast"}}
    seeing = folder(tmp_path, files, vision_config={"model_type": "pixtral", "patch_size": 14})

    assert set(seeing.rewritten()) == {"config.json", "preprocessor_config.json"}
    assert seeing.rewritten()["config.json"]["vision_config"]["spatial_patch_size"] == 14


def test_a_towers_rope_is_where_the_library_seeks_it() -> None:
    vision = {"patch_size": 14, "rope_parameters": {"rope_theta": 1e4, "rope_type": "axial"}}

    made = legacy({"vision_config": vision})["vision_config"]

    assert made == {"patch_size": 14, "spatial_patch_size": 14, "rope_theta": 1e4}


def test_yarn_without_a_length_stretches_the_models_own() -> None:
    made = legacy({"max_position_embeddings": 512, "rope_scaling": {"type": "yarn", "factor": 2.0}})

    assert made["rope_scaling"]["original_max_position_embeddings"] == 512


def test_experts_whose_weights_are_scaled_are_taken(tmp_path: Path) -> None:
    made = folder(tmp_path, architectures=["Qwen3MoeForCausalLM"], norm_topk_prob=True)

    assert made.architecture == "Qwen3MoeForCausalLM"

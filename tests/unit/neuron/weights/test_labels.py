from __future__ import annotations

import gguf
import pytest

from services.neuron.weights import labels


@pytest.mark.parametrize("kind", list(gguf.LlamaFileType))
def test_names_are_those_of_the_format_itself(kind):
    name = kind.name.removeprefix("MOSTLY_").removeprefix("ALL_")

    assert labels.of_gguf(kind.value) in {name, ""}


def test_an_unknown_type_has_no_name():
    assert labels.of_gguf(-1) == ""


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"torch_dtype": "bfloat16"}, "BF16"),
        ({"dtype": "float16", "torch_dtype": "float32"}, "F16"),
        ({"torch_dtype": "int7"}, "INT7"),
        ({}, ""),
        ({"quantization_config": {"quant_method": "exl2", "bits": 4.25}}, "4.25bit"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}, "dtype": "float16"}, "4bit"),
        ({"quantization_config": {"quant_method": "awq", "w_bit": 4}}, "4bit"),
        ({"quantization_config": {"quant_method": "x"}, "dtype": "float16"}, ""),
    ],
)
def test_what_a_config_says(config, name):
    assert labels.of_config(config) == name


@pytest.mark.parametrize(
    ("count", "label"),
    [(0, ""), (999, "999"), (134_515_008, "135M"), (1_711_376_384, "1.71B"), (7 * 10**12, "7T")],
)
def test_counts_are_rounded_to_how_models_are_named(count, label):
    assert labels.size_of(count) == label

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from services.neuron.weights.tensor_shape import UNKNOWN, TensorShape

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
}
SMOLLM2 = TensorShape.of_config(CONFIG, "safetensors")


def quantised(**settings: Any) -> TensorShape:
    return TensorShape.of_config({**CONFIG, "quantization_config": settings}, "gptq")


def test_a_configuration_is_read():
    assert SMOLLM2 == TensorShape(
        "LlamaForCausalLM", "safetensors", heads=9, kv_heads=3, head_dim=64, intermediate=1536
    )


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"architectures": "x", "num_attention_heads": "9", "hidden_size": -1},
        {"architectures": [], "quantization_config": [], "num_attention_heads": True},
    ],
)
def test_nonsense_is_not_known(config):
    made = TensorShape.of_config(config, "safetensors")

    assert made == dataclasses.replace(
        UNKNOWN, format="safetensors", architecture=made.architecture
    )
    assert made.objection(2)


@pytest.mark.parametrize("ranks", [3])
@pytest.mark.parametrize("shape", [SMOLLM2, quantised(group_size=64), quantised(group_size=-1)])
def test_three_gpus_divide_nine_heads(shape, ranks):
    assert not shape.objection(ranks)


@pytest.mark.parametrize(
    ("shape", "ranks", "said"),
    [
        (SMOLLM2, 2, "num_attention_heads is 9, which 2 GPUs do not divide."),
        (dataclasses.replace(SMOLLM2, heads=8, kv_heads=1), 2, "num_key_value_heads is 1, which"),
        (dataclasses.replace(SMOLLM2, intermediate=1000), 3, "intermediate_size is 1000, which"),
        (dataclasses.replace(SMOLLM2, has_vision=True), 3, "vision tower"),
        (dataclasses.replace(SMOLLM2, format="exl2"), 3, "EXL2 weights cannot be divided"),
        (dataclasses.replace(SMOLLM2, architecture="Gemma2ForCausalLM"), 3, "Gemma2ForCausalLM"),
        (quantised(group_size=128), 3, "192 on each of 3 GPUs are no whole groups of 128"),
        (quantised(group_size=64, desc_act=True), 3, "desc_act"),
        (
            dataclasses.replace(quantised(group_size=16), kv_heads=3, head_dim=16),
            3,
            "a multiple of 32",
        ),
    ],
)
def test_what_cannot_be_divided_is_said_with_the_setting_that_decides(shape, ranks, said):
    assert said in shape.objection(ranks)

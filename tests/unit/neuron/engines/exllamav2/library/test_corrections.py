import types
from typing import Any

import pytest

from services.neuron.engines.exllamav2.library.corrections import correct

LLAMA, YI = "model.layers.0.input_layernorm.weight", "model.layers.0.ln1.weight"


def corrected(architecture: str, *, norm: str = LLAMA) -> Any:
    parts = types.SimpleNamespace(headnorm="layernorm", keys={"norm_1": ".ln1", "norm_2": ".ln2"})
    config = types.SimpleNamespace(
        arch=types.SimpleNamespace(lm=parts), tensor_file_map={norm: "model.safetensors"}
    )
    correct(config, architecture)
    return parts


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [
        ("Qwen3ForCausalLM", "rmsnorm"),
        ("Qwen3MoeForCausalLM", "rmsnorm"),
        ("CohereForCausalLM", "layernorm"),
        ("LlamaForCausalLM", "layernorm"),
    ],
)
def test_norms_of_heads_are_those_that_the_model_has(architecture: str, kind: str) -> None:
    assert corrected(architecture).headnorm == kind


@pytest.mark.parametrize(
    ("architecture", "norm", "key"),
    [
        ("YiForCausalLM", LLAMA, ".input_layernorm"),
        ("YiForCausalLM", YI, ".ln1"),
        ("LlamaForCausalLM", LLAMA, ".ln1"),
    ],
)
def test_norms_of_yi_are_sought_where_they_are(architecture: str, norm: str, key: str) -> None:
    assert corrected(architecture, norm=norm).keys["norm_1"] == key

"""Stretched rotary embeddings against the numbers that transformers 5.17 gives."""

import types
from typing import Any

import pytest
import torch

from services.neuron.engines.exllamav2.library import rotary

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}
LONG = [1.0 + 0.5 * n for n in range(16)]
SHORT = [1.0 + 0.01 * n for n in range(16)]


def configuration(width: int, context: int, scaling: dict[str, Any], **fields: Any) -> Any:
    made = types.SimpleNamespace(head_dim=width, partial_rotary_factor=1.0, **fields)
    rotary.remember(made, rotary.Trained(scaling, context))
    return made


@pytest.mark.parametrize(
    ("options", "third", "attention"),
    [
        ({}, 0.005154795479, 1.138629436),
        ({"beta_fast": 16.0, "beta_slow": 2.0}, 0.005623413250, 1.138629436),
        ({"attention_factor": 1.5}, 0.005154795479, 1.5),
        ({"mscale": 1.0, "mscale_all_dim": 0.7}, 0.005154795479, 1.037910020),
        ({"truncate": False}, 0.005517270416, 1.138629436),
    ],
)
def test_yarn(options: dict[str, Any], third: float, attention: float) -> None:
    frequencies, scale = rotary.yarn("cpu", configuration(64, 131072, {**YARN, **options}), 1e6)

    assert frequencies[0] == 1.0
    assert frequencies[12].item() == pytest.approx(third, rel=1e-6)
    assert frequencies[30].item() == pytest.approx(5.928434348e-07, rel=1e-6)
    assert scale == pytest.approx(attention)


def test_yarn_does_not_ask_how_much_was_loaded() -> None:
    made = [
        rotary.yarn("cpu", configuration(64, 131072, YARN, max_seq_len=length), 1e6)
        for length in (4096, 131072)
    ]

    assert torch.equal(made[0][0], made[1][0])


@pytest.mark.parametrize(
    ("loaded", "last"), [(4096, 0.00015463300224), (8192, 2.092093382e-05)], ids=["short", "long"]
)
def test_long_rope(loaded: int, last: float) -> None:
    made = configuration(
        32, 131072, {}, original_max_seq_len=4096, max_seq_len=loaded,
        scale_long_factor=LONG, scale_short_factor=SHORT,
    )  # fmt: skip

    frequencies, scale = rotary.longrope("cpu", made, 1e4)

    assert frequencies[15].item() == pytest.approx(last, rel=1e-6)
    assert scale == pytest.approx(1.190238071)  # of the trained length, whatever was loaded


def test_a_models_own_attention_factor_counts() -> None:
    made = configuration(
        32, 131072, {"attention_factor": 1.25}, original_max_seq_len=4096, max_seq_len=8192,
        scale_long_factor=LONG, scale_short_factor=SHORT,
    )  # fmt: skip

    assert rotary.longrope("cpu", made, 1e4)[1] == 1.25


def test_the_library_uses_them() -> None:
    from exllamav2 import rope

    assert rope.get_rope_params_yarn is rotary.yarn
    assert rope.get_rope_params_su is rotary.longrope

"""Frequencies of stretched rotary embeddings, where 0.3.2 computes other ones than were trained.

The library takes the loaded length where the formulas want the trained one: YaRN's ramp lies
elsewhere and is switched off for short loads, and LongRoPE's scale depends on how long a context
was asked for. It also knows none of YaRN's options. Both are computed here as transformers does.

Source: transformers 5, modeling_rope_utils.py; exllamav2/rope.py (0.3.2), whose functions these
replace: each returns (head_dim / 2,) float32 inverse frequencies and a factor for sines.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Final

import torch

_FACTS: Final = "cortex_rotary"
"""The attribute of the library's configuration that `remember` sets."""


@dataclasses.dataclass(frozen=True, slots=True)
class Trained:
    """What a model was trained with.

    Attributes:
        scaling: `rope_scaling`.
        context: its longest sequence.
    """

    scaling: Mapping[str, Any]
    context: int


def remember(config: Any, trained: Trained) -> None:
    """Puts where `yarn` and `longrope` find it what the library's configuration leaves out."""
    setattr(config, _FACTS, trained)


def install(rope: Any) -> None:
    """Replaces two functions of the library's module `rope`."""
    rope.get_rope_params_yarn = yarn
    rope.get_rope_params_su = longrope


def yarn(device: Any, config: Any, base: float) -> tuple[Any, float]:
    """YaRN: fast frequencies stay, slow ones are stretched, with a ramp between."""
    scaling = getattr(config, _FACTS).scaling
    width = _width(config)
    factor = float(scaling["factor"])
    original = int(scaling["original_max_position_embeddings"])

    def dimension(rotations: float) -> float:
        return width * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low = dimension(float(scaling.get("beta_fast") or 32))
    high = dimension(float(scaling.get("beta_slow") or 1))
    if scaling.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, width - 1)
    steps = torch.arange(width // 2, device=device, dtype=torch.float32)
    ramp = ((steps - low) / max(high - low, 0.001)).clamp(0, 1)
    plain = _frequencies(device, base, width)
    return plain / factor * ramp + plain * (1 - ramp), _yarn_attention(scaling, factor)


def longrope(device: Any, config: Any, base: float) -> tuple[Any, float]:
    """LongRoPE: a factor for each frequency, one set for short contexts and one for long ones."""
    trained: Trained = getattr(config, _FACTS)
    original = int(config.original_max_seq_len)
    is_long = config.max_seq_len > original
    factors = config.scale_long_factor if is_long else config.scale_short_factor
    stretched = _frequencies(device, base, _width(config)) / torch.tensor(
        factors, dtype=torch.float32, device=device
    )
    given = trained.scaling.get("attention_factor")
    if given is not None:
        return stretched, float(given)
    ratio = trained.context / original
    scale = 1.0 if ratio <= 1 else math.sqrt(1 + math.log(ratio) / math.log(original))
    return stretched, scale


def _yarn_attention(scaling: Mapping[str, Any], factor: float) -> float:
    def grown(by: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * by * math.log(factor) + 1.0

    given, mscale, overall = (
        scaling.get(name) for name in ("attention_factor", "mscale", "mscale_all_dim")
    )
    if given is not None:
        return float(given)
    return grown(float(mscale)) / grown(float(overall)) if mscale and overall else grown(1.0)


def _width(config: Any) -> int:
    return int(config.head_dim * config.partial_rotary_factor)


def _frequencies(device: Any, base: float, width: int) -> Any:
    steps = torch.arange(0, width, 2, device=device, dtype=torch.float32)
    return 1.0 / base ** (steps / width)

"""The sizes of a model that decide among how many GPUs each of its layers can be divided. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final, cast

ARCHITECTURES: Final = frozenset({
    "GraniteForCausalLM", "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM",
})  # fmt: skip
"""Layers of separate projections whose sums nothing but the residual follows."""
FORMATS: Final = frozenset({"safetensors", "gptq"})
_PACKED: Final = 32
"""Outputs of a quantised matrix come in multiples of this."""


@dataclasses.dataclass(frozen=True, slots=True)
class TensorShape:
    """What is divided: heads, and the inner width of the feed-forward part. 0 is not known.

    Attributes:
        architecture: the class name in `config.json`.
        format: as in `inspect.Weights`.
        heads, kv_heads, head_dim: of the attention.
        intermediate: the inner width.
        group_size: quantised inputs with one scale; 0 for a whole column.
        is_scattered: the groups are not in the order of the inputs (`desc_act`).
        has_vision: it has a vision tower.
    """

    architecture: str = ""
    format: str = ""
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    intermediate: int = 0
    group_size: int = 0
    is_scattered: bool = False
    has_vision: bool = False

    @classmethod
    def of_config(cls, config: Mapping[str, Any], weights_format: str) -> TensorShape:
        """What a `config.json` says; never raises, what it does not say is 0.

        Args:
            config: its content, the language model's part on the same level.
            weights_format: as in `inspect.Weights`.
        """
        names = config.get("architectures")
        named = isinstance(names, list) and names
        found: Any = config.get("quantization_config")
        quantised = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
        heads = _whole(config.get("num_attention_heads"))
        hidden = _whole(config.get("hidden_size"))
        return cls(
            architecture=str(cast("list[object]", names)[0]) if named else "",
            format=weights_format,
            heads=heads,
            kv_heads=_whole(config.get("num_key_value_heads")) or heads,
            head_dim=_whole(config.get("head_dim")) or hidden // max(1, heads),
            intermediate=_whole(config.get("intermediate_size")),
            group_size=_whole(quantised.get("group_size")),
            is_scattered=bool(quantised.get("desc_act")),
            has_vision=bool(config.get("vision_config")),
        )

    def objection(self, ranks: int) -> str:
        """Why its layers cannot be divided among so many GPUs, in a sentence; empty if they can."""
        if self.format not in FORMATS:
            return f"{self.format.upper()} weights cannot be divided, only 16-bit and GPTQ ones."
        if self.architecture not in ARCHITECTURES:
            return f"The layers of {self.architecture or 'this model'} cannot be divided."
        if self.has_vision:
            return "A model with a vision tower cannot be divided."
        sizes = {
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "intermediate_size": self.intermediate,
        }
        for name, size in sizes.items():
            if not size or size % ranks:
                return f"{name} is {size}, which {ranks} GPUs do not divide."
        return self._quantised_objection(ranks) if self.format == "gptq" else ""

    def _quantised_objection(self, ranks: int) -> str:
        if self.is_scattered:
            return "GPTQ weights with desc_act cannot be divided: their groups are scattered."
        parts = {
            "num_attention_heads × head_dim": self.heads * self.head_dim,
            "intermediate_size": self.intermediate,
        }
        for name, size in parts.items():
            if self.group_size and size // ranks % self.group_size:
                return (
                    f"{name} is {size}: {size // ranks} on each of {ranks} GPUs are no whole"
                    f" groups of {self.group_size} (group_size)."
                )
        if self.kv_heads * self.head_dim // ranks % _PACKED or self.intermediate // ranks % _PACKED:
            return f"Parts of GPTQ weights must be a multiple of {_PACKED} wide on each GPU."
        return ""


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0


UNKNOWN: Final = TensorShape()
"""Of files that say nothing of it."""

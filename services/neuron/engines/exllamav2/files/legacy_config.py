"""A model folder's settings in the words that ExLlamaV2 0.3.2 reads. Pure.

The library knows the files that transformers 4.4x wrote. What newer ones write elsewhere or under
another name it misses without a word, and fills in a default: another base of the rotary embedding,
another pattern of sliding windows. `loading` lays files that are written as it wants them beside
links to the weights.

Source: exllamav2/config.py and architecture.py (0.3.2); transformers 5 (`rope_parameters`,
`layer_types`, `processor_config.json`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from services.neuron.engine_api.model import LoadFailed

BAD: Final = "MODEL_FILE_BAD"
NESTED: Final = "text_config"
"""Where a model that sees keeps the settings of its language model."""

_HOISTED: Final = (
    "bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings", "attention_bias",
    "partial_rotary_factor", "sliding_window_pattern",
)  # fmt: skip
"""What the library looks for at the top level alone."""

_LEFT_OUT: Final[Mapping[str, Mapping[str, Any]]] = {
    # Published Gemma 3 folders leave out what is the default of transformers' own class.
    "Gemma3ForConditionalGeneration": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262_208,
        "max_position_embeddings": 131_072,
    },
}
_ALTERNATING: Final[Mapping[str, int]] = {
    "Cohere2ForCausalLM": 4,
    "Gemma2ForCausalLM": 2,
    "Gemma3ForConditionalGeneration": 6,
}
"""Architectures whose sliding windows the library has; every so many layers there is none."""
_ROPE_KINDS: Final = frozenset({"linear", "su", "longrope", "yarn", "llama3", "dynamic"})


def legacy(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config.json` as transformers 4.4x would have written it; equal to `config` if it was.

    Raises:
        LoadFailed: a variant that the library would silently ignore.
    """
    made = _level(config)
    nested: Any = config.get(NESTED)
    if isinstance(nested, Mapping):
        inner = _level(cast("Mapping[str, Any]", nested))
        made[NESTED] = inner
        for key in _HOISTED:
            if inner.get(key) is not None and made.get(key) is None:
                made[key] = inner[key]
    return _with_vision(_with_windows(made))


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the language model, with what its files leave to a class's defaults."""
    nested: Any = config.get(NESTED) or {}
    architectures: Any = config.get("architectures") or [""]
    left_out = _LEFT_OUT.get(str(architectures[0]), {})
    return {**left_out, **config, **nested}


def legacy_preprocessor(
    preprocessor: Mapping[str, Any] | None, processor: Mapping[str, Any] | None
) -> dict[str, Any] | None:
    """`preprocessor_config.json` with the keys that the library insists on; None if there is none.

    Args:
        preprocessor: the file.
        processor: `processor_config.json`, into which transformers 5 puts the other.
    """
    found: Any = preprocessor
    if found is None and processor is not None:
        found = processor.get("image_processor")
    if not isinstance(found, Mapping):
        return None
    made = dict(cast("Mapping[str, Any]", found))
    kind = str(made.get("image_processor_type", ""))
    made["image_processor_type"] = kind.removesuffix("Fast")
    size: Any = made.get("size")
    if isinstance(size, Mapping) and kind.startswith("Qwen"):
        edges = cast("Mapping[str, Any]", size)
        # Pixels, whatever the name says.
        made.setdefault("min_pixels", edges.get("shortest_edge"))
        made.setdefault("max_pixels", edges.get("longest_edge"))
    return made


def _level(config: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(config)
    parameters: Any = made.pop("rope_parameters", None)
    if isinstance(parameters, Mapping):
        rope = dict(cast("Mapping[str, Any]", parameters))
        if "full_attention" in rope:  # Gemma 3: the sliding half is fixed inside the library
            rope = dict(rope["full_attention"])
        for name in ("rope_theta", "partial_rotary_factor"):
            if name in rope:
                made.setdefault(name, rope.pop(name))
        made.setdefault("rope_scaling", rope)
    if "dtype" in made:
        made.setdefault("torch_dtype", made.pop("dtype"))
    if isinstance(made.get("rope_scaling"), Mapping):
        scaling = made["rope_scaling"] = _rope(made["rope_scaling"])
        _tell_original_length(made, scaling or {})
    return made


def _tell_original_length(made: dict[str, Any], scaling: dict[str, Any]) -> None:
    """Puts the length before stretching where the library seeks it."""
    name, kind = "original_max_position_embeddings", scaling.get("rope_type")
    if kind == "yarn" and made.get("max_position_embeddings") is not None:
        scaling.setdefault(name, made["max_position_embeddings"])
    if kind in {"su", "longrope"} and name in scaling:
        made.setdefault(name, scaling[name])


def _rope(rope: Mapping[str, Any]) -> dict[str, Any] | None:
    """`rope_scaling` with one name for its kind; None where nothing is scaled."""
    made = {key: value for key, value in rope.items() if value is not None}
    kind = made.pop("rope_type", None) or made.pop("type", None)
    made.pop("type", None)
    if "mrope_section" in made:
        return {**made, "type": "mrope"}
    if kind in {None, "default"}:
        return None
    if kind not in _ROPE_KINDS:
        raise LoadFailed(BAD, f"config.json: rope_scaling: ExLlamaV2 does not implement {kind}.")
    return {**made, "rope_type": kind}


def _with_windows(made: dict[str, Any]) -> dict[str, Any]:
    """With the pattern of sliding windows, which newer files tell layer by layer."""
    architectures: Any = made.get("architectures") or [""]
    usual = _ALTERNATING.get(str(architectures[0]))
    kinds: Any = made.get("layer_types") or (made.get(NESTED) or {}).get("layer_types")
    if usual is None or not isinstance(kinds, list) or made.get("sliding_window_pattern"):
        return made
    is_full = [kind == "full_attention" for kind in cast("list[object]", kinds)]
    if all(is_full):
        return {**made, "sliding_window": 0}
    pattern = is_full.index(True) + 1 if True in is_full else usual
    if is_full != [(layer + 1) % pattern == 0 for layer in range(len(is_full))]:
        told = "config.json: layer_types: ExLlamaV2 has no sliding windows in this order."
        raise LoadFailed(BAD, told)
    return {**made, "sliding_window_pattern": pattern}


def _with_vision(made: dict[str, Any]) -> dict[str, Any]:
    """With what the library wants of a vision tower, by the names that it knows."""
    vision: Any = made.get("vision_config")
    if not isinstance(vision, Mapping):
        return made
    seen = dict(cast("Mapping[str, Any]", vision))
    rope: Any = seen.pop("rope_parameters", None)
    if isinstance(rope, Mapping):
        seen.setdefault("rope_theta", cast("Mapping[str, Any]", rope).get("rope_theta"))
    if "patch_size" in seen:
        seen.setdefault("spatial_patch_size", seen["patch_size"])
    return {**made, "vision_config": seen}

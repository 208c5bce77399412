"""What a model folder says about itself, in the words that ExLlamaV2 0.3.2 understands.

Pure but for reading the folder's small JSON files. ExLlamaV2 reads `config.json` itself, with the
key names of 2025; `legacy` says how the file must look for it, and `loading` lays such a copy
beside links to the weights where the two differ.

Source: exllamav2/config.py and architecture.py (0.3.2), transformers 5 (`rope_parameters`).
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any, Final, cast

from services.neuron.engine import LoadFailed, SamplingParams

ARCHITECTURES: Final = frozenset({
    "CohereForCausalLM", "Cohere2ForCausalLM", "DbrxForCausalLM", "Gemma2ForCausalLM",
    "Gemma3ForConditionalGeneration", "GemmaForCausalLM", "GemmoeForCausalLM", "Glm4ForCausalLM",
    "GPT2LMHeadModel", "GPTBigCodeForCausalLM", "GraniteForCausalLM", "IndexForCausalLM",
    "InternLM2ForCausalLM", "LlamaForCausalLM", "LlavaForConditionalGeneration",
    "MiniCPMForCausalLM", "Mistral3ForConditionalGeneration", "MistralForCausalLM",
    "MixtralForCausalLM", "OrionForCausalLM", "Phi3ForCausalLM",
    "Qwen2_5_VLForConditionalGeneration", "Qwen2ForCausalLM", "Qwen2VLForConditionalGeneration",
    "Qwen3ForCausalLM", "Qwen3MoeForCausalLM", "Starcoder2ForCausalLM", "YiForCausalLM",
})  # fmt: skip
"""What 0.3.2 implements. It loads anything else as Llama, with a printed warning and nonsense."""

QUANTISATIONS: Final = frozenset({"exl2", "gptq"})
BAD: Final = "MODEL_FILE_BAD"
_MULTIMODAL_PREFIX: Final = "text_config"


@dataclasses.dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes that decide how much memory a model takes.

    Attributes:
        layers: decoder layers.
        hidden, intermediate: widths, in elements.
        heads, kv_heads, head_dim: of the attention.
        vocabulary: rows of the embedding.
        context: longest sequence by `config.json`.
        tied: the head shares the embedding's weights.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context: int
    tied: bool


@dataclasses.dataclass(frozen=True, slots=True)
class ModelFolder:
    """The small files of a model folder, read once.

    Attributes:
        path: the folder.
        config: `config.json`.
        generation: `generation_config.json`, empty where there is none.
        tokenizer_config: `tokenizer_config.json`, empty where there is none.
    """

    path: pathlib.Path
    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    tokenizer_config: Mapping[str, Any]

    @classmethod
    def read(cls, path: pathlib.Path) -> ModelFolder:
        """Reads and checks a folder.

        Raises:
            LoadFailed: something is missing, unreadable or not for this engine.
        """
        if not path.is_dir():
            raise LoadFailed(BAD, f"{path}: ExLlamaV2 loads folders of safetensors, not files.")
        folder = cls(
            path,
            _read(path / "config.json", required=True),
            _read(path / "generation_config.json"),
            _read(path / "tokenizer_config.json"),
        )
        folder.check()
        return folder

    def check(self) -> None:
        """Refuses what the library would load wrongly or not at all.

        Raises:
            LoadFailed: the architecture or format is not supported, or the tokenizer is missing.
        """
        name = self.architecture
        if name not in ARCHITECTURES:
            raise LoadFailed(BAD, f"ExLlamaV2 0.3.2 does not implement {name}.")
        method = self.quantisation
        if method not in QUANTISATIONS | {""}:
            known = ", ".join(sorted(QUANTISATIONS))
            raise LoadFailed(BAD, f"Weights are quantised by {method}; ExLlamaV2 reads {known}.")
        if not (self.path / "tokenizer.json").is_file():
            raise LoadFailed(BAD, f"{self.path}: tokenizer.json is missing.")

    @property
    def architecture(self) -> str:
        """The class name in `config.json`."""
        names = self.config.get("architectures")
        if not isinstance(names, list) or len(cast("list[object]", names)) != 1:
            raise LoadFailed(BAD, f"{self.path}/config.json: architectures: want exactly one.")
        return str(cast("list[object]", names)[0])

    @property
    def quantisation(self) -> str:
        """`exl2`, `gptq`, another method's name, or empty for 16-bit weights."""
        settings: Any = self.config.get("quantization_config") or {}
        return str(settings.get("quant_method", ""))

    @property
    def text(self) -> Mapping[str, Any]:
        """The language model's part of `config.json`."""
        nested: Any = self.config.get(_MULTIMODAL_PREFIX) or {}
        return {**self.config, **nested}

    @property
    def has_vision(self) -> bool:
        """The folder describes a vision tower."""
        return bool(self.config.get("vision_config"))

    @property
    def geometry(self) -> Geometry:
        """The sizes, with the library's own defaults.

        Raises:
            LoadFailed: a size is missing.
        """
        heads = self._size("num_attention_heads", "n_heads", "n_head")
        hidden = self._size("hidden_size", "d_model", "n_embd")
        return Geometry(
            layers=self._size("num_hidden_layers", "n_layers", "n_layer"),
            hidden=hidden,
            intermediate=self._size("intermediate_size", "n_inner", default=4 * hidden),
            heads=heads,
            kv_heads=self._size("num_key_value_heads", default=heads),
            head_dim=self._size("head_dim", default=hidden // max(1, heads)),
            vocabulary=self._size("vocab_size"),
            context=self._size(
                "max_sequence_length", "model_max_length", "max_position_embeddings",
                "max_seq_len", "n_positions", default=2048,
            ),
            tied=bool(self.text.get("tie_word_embeddings", False)),
        )  # fmt: skip

    @property
    def chat_template(self) -> str | None:
        """Jinja source of the default template, None where the model has none."""
        file = self.path / "chat_template.jinja"
        if file.is_file():
            return file.read_text(encoding="utf-8")
        given: Any = self.tokenizer_config.get("chat_template")
        if given is None:
            given = _read(self.path / "chat_template.json").get("chat_template")
        if isinstance(given, list):  # named templates
            named = cast("list[Mapping[str, str]]", given)
            return next((t["template"] for t in named if t.get("name") == "default"), None)
        return given if isinstance(given, str) else None

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """Every token that ends a turn, from both configs; the library would keep only the first.

        Source: generation_config.json lists more than config.json for Llama 3, Gemma and Qwen.
        """
        found: dict[int, None] = {}
        for source in (self.generation, self.text):
            value: Any = source.get("eos_token_id")
            many: list[Any] = value if isinstance(value, list) else [value]
            found.update({int(one): None for one in many if isinstance(one, int)})
        return tuple(found)

    @property
    def default_sampling(self) -> SamplingParams | None:
        """Sampling from `generation_config.json`, None where the file says nothing about it."""
        given = self.generation
        if given.get("do_sample") is False:
            return SamplingParams(temperature=0.0)
        names = ("temperature", "top_p", "min_p", "typical_p", "repetition_penalty")
        numbers: dict[str, Any] = {
            name: float(given[name])
            for name in names
            if isinstance(given.get(name), int | float) and not isinstance(given[name], bool)
        }
        top_k: Any = given.get("top_k")
        if not numbers and not isinstance(top_k, int):
            return None
        return SamplingParams(top_k=max(0, top_k) if isinstance(top_k, int) else 0, **numbers)

    def _size(self, *names: str, default: int | None = None) -> int:
        for name in names:
            value: Any = self.text.get(name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return int(value)
        if default is not None:
            return default
        raise LoadFailed(BAD, f"{self.path}/config.json: {names[0]}: missing.")


def legacy(config: Mapping[str, Any]) -> dict[str, Any]:
    """`config.json` as transformers 4.4x would have written it; equal to `config` if it was.

    Raises:
        LoadFailed: a RoPE variant that the library would silently ignore.
    """
    made = _legacy_level(config)
    nested: Any = config.get(_MULTIMODAL_PREFIX)
    if isinstance(nested, Mapping):
        made[_MULTIMODAL_PREFIX] = _legacy_level(cast("Mapping[str, Any]", nested))
    return made


def _legacy_level(config: Mapping[str, Any]) -> dict[str, Any]:
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
        made["rope_scaling"] = _legacy_rope(made["rope_scaling"])
    return made


def _legacy_rope(rope: Mapping[str, Any]) -> dict[str, Any] | None:
    """`rope_scaling` with one name for its kind; None where nothing is scaled."""
    made = {key: value for key, value in rope.items() if value is not None}
    kind = made.pop("rope_type", None) or made.pop("type", None)
    made.pop("type", None)
    if "mrope_section" in made:
        return {**made, "type": "mrope"}
    if kind in {None, "default"}:
        return None
    if kind not in {"linear", "su", "longrope", "yarn", "llama3", "dynamic"}:
        raise LoadFailed(BAD, f"config.json: rope_scaling: ExLlamaV2 does not implement {kind}.")
    return {**made, "rope_type": kind}


def _read(path: pathlib.Path, *, required: bool = False) -> Mapping[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if required:
            raise LoadFailed(BAD, f"{path}: missing.") from error
        return {}
    except (OSError, ValueError) as error:
        raise LoadFailed(BAD, f"{path}: {error}") from error
    if not isinstance(value, dict):
        raise LoadFailed(BAD, f"{path}: not a JSON object.")
    return cast("dict[str, Any]", value)

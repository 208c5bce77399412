"""What a model folder says about itself. Pure but for reading the folder's small JSON files.

ExLlamaV2 reads the same files itself; `legacy_config` says how they must look for it.

Source: exllamav2/config.py and architecture.py (0.3.2).
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any, Final, cast

from services.neuron.engine_api.model import LoadFailed
from services.neuron.engine_api.task import SamplingParams
from services.neuron.engines.exllamav2.files.geometry import Geometry
from services.neuron.engines.exllamav2.files.legacy_config import (
    BAD,
    completed,
    legacy,
    legacy_preprocessor,
)

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
GPTQ_BITS: Final = 4
GPTQ_FORMATS: Final = frozenset({"", "gptq", "gptq_v2"})
"""How the checkpoint is packed; older files do not say."""


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
        if method == "gptq":
            self._check_gptq()
        # Left out it means the same.
        if name == "Qwen3MoeForCausalLM" and not self.text.get("norm_topk_prob"):
            told = "norm_topk_prob: ExLlamaV2 always scales the weights of experts to 1."
            raise LoadFailed(BAD, f"{self.path}/config.json: {told}")
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
        return str(self._quantization.get("quant_method", ""))

    @property
    def text(self) -> Mapping[str, Any]:
        """The language model's part of `config.json`."""
        return completed(self.config)

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
            intermediate=self._size(
                "intermediate_size", "n_inner", "ffn_config.ffn_hidden_size", default=4 * hidden
            ),
            heads=heads,
            kv_heads=self._kv_heads(heads),
            head_dim=self._size("head_dim", default=hidden // max(1, heads)),
            vocabulary=self._size("vocab_size"),
            context=self._context,
            has_softcap=bool(self.text.get("attn_logit_softcapping")),
        )  # fmt: skip

    @property
    def rope_scaling(self) -> Mapping[str, Any]:
        """How the rotary embedding is stretched, with one name for its kind; empty for not.

        Raises:
            LoadFailed: in a way that the library does not have.
        """
        found: Any = completed(legacy(self.config)).get("rope_scaling") or {}
        return cast("Mapping[str, Any]", found)

    def rewritten(self) -> dict[str, Mapping[str, Any]]:
        """Files that the library would misread, by name, as it reads them.

        Raises:
            LoadFailed: there is no way to say it.
        """
        made: dict[str, Mapping[str, Any]] = {}
        config = legacy(self.config)
        if config != dict(self.config):
            made["config.json"] = config
        if self.has_vision:
            given = _read(self.path / "preprocessor_config.json")
            whole = _read(self.path / "processor_config.json")
            wanted = legacy_preprocessor(given or None, whole or None)
            if wanted is not None and wanted != dict(given):
                made["preprocessor_config.json"] = wanted
        return made

    @property
    def chat_template(self) -> str | None:
        """Jinja source of the default template, None where the model has none."""
        file = self.path / "chat_template.jinja"
        if file.is_file():
            return file.read_text(encoding="utf-8")
        given: Any = self.tokenizer_config.get("chat_template")
        if given is None:
            given = _read(self.path / "chat_template.json").get("chat_template")
        return given if isinstance(given, str) else self._named_template("default")

    @property
    def tool_template(self) -> str | None:
        """Jinja source of the template for chats with tools, None where the model has none."""
        file = self.path / "additional_chat_templates" / "tool_use.jinja"
        return (
            file.read_text(encoding="utf-8") if file.is_file() else self._named_template("tool_use")
        )

    def _named_template(self, name: str) -> str | None:
        given: Any = self.tokenizer_config.get("chat_template")
        if not isinstance(given, list):
            return None
        named = cast("list[Mapping[str, str]]", given)
        return next((t["template"] for t in named if t.get("name") == name), None)

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

    @property
    def _context(self) -> int:
        names = (
            "max_sequence_length", "model_max_length", "max_position_embeddings", "max_seq_len",
            "n_positions",
        )  # fmt: skip
        length = self._size(*names, default=2048)
        scaling = self.rope_scaling
        if scaling.get("rope_type") != "yarn":
            return length
        # Qwen's files keep the length before stretching.
        original = scaling.get("original_max_position_embeddings") or length
        return max(length, int(float(scaling.get("factor", 1.0)) * int(original)))

    def _kv_heads(self, heads: int) -> int:
        if self.architecture == "GPTBigCodeForCausalLM":
            return 1
        return self._size("num_key_value_heads", "attn_config.kv_n_heads", default=heads)

    @property
    def _quantization(self) -> Mapping[str, Any]:
        settings: Any = self.text.get("quantization_config") or {}
        return cast("Mapping[str, Any]", settings)

    def _check_gptq(self) -> None:
        """The library takes any packing for 4 bits, and reads past the ends of others."""
        settings = self._quantization
        dynamic: Any = settings.get("dynamic") or {}
        rules = [rule for rule in dynamic.values() if isinstance(rule, dict)]
        for rule in (settings, *cast("list[dict[str, Any]]", rules)):
            bits = rule.get("bits", GPTQ_BITS)
            if bits != GPTQ_BITS:
                raise LoadFailed(BAD, f"GPTQ weights of {bits} bits; ExLlamaV2 reads those of 4.")
        packing = str(settings.get("checkpoint_format") or "")
        if packing not in GPTQ_FORMATS:
            raise LoadFailed(BAD, f"GPTQ weights packed as {packing}; ExLlamaV2 reads gptq.")

    def _size(self, *names: str, default: int | None = None) -> int:
        text = self.text
        for name in names:
            level, _, key = name.rpartition(".")
            value: Any = (text.get(level) or {}).get(key) if level else text.get(key)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return int(value)
        if default is not None:
            return default
        raise LoadFailed(BAD, f"{self.path}/config.json: {names[0]}: missing.")


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

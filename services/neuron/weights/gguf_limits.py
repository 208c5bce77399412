"""What llama.cpp would not refuse in a GGUF header but end its process at, with every model in it.

Source: llama.cpp b11549 (0.6.0), `src/llama-model.cpp` and the assertions in `src/models/*.cpp`,
`ggml/src/ggml-cpu/ops.cpp`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from services.neuron.weights.gguf_reader import BadGgufError

Fact = Callable[[str], int]
# llama.cpp ends the process at more (LLAMA_MAX_LAYERS, LLAMA_MAX_EXPERTS).
_MOST_LAYERS: Final = 512
_MOST_EXPERTS: Final = 1024
_WHOLE: Final = """
    apertus arcee arctic baichuan chameleon codeshell cogvlm cohere2moe dbrx deci deepseek dots1
    dream ernie4_5 ernie4_5-moe exaone exaone-moe exaone4 falcon granite granite_swa granitemoe
    graniteswitch grok grovemoe hunyuan-dense hunyuan-moe hunyuan_vl hy_v3 internlm2 jais2 llada
    llada-moe llama llama-embed llama4 maincoder mellum minicpm mistral3 olmo olmo2 olmoe orion
    paddleocr pangu-embedded plamo pockettts qwen2 qwen2moe qwen2vl qwen3 qwen3moe qwen3tts qwen3vl
    qwen3vlmoe rnd1 seed_oss smallthinker smollm3 starcoder2 talkie xverse
"""
_TURN_WHOLE_HEADS: Final = frozenset(_WHOLE.split())
"""Architectures that assert that rotary positions turn all dimensions of a head (`n_rot`)."""
_PARTLY: Final = """
    afmoe bailingmoe2 bert bitnet bloom chatglm clef cohere2 command-r eurobert glm4 glm4moe gpt2
    gptneox granitehybrid jais jina-bert-v2 jina-bert-v3 k2-horizon laguna minimax-01 minimax-m2
    minimax-m3 modern-bert mpt muse-glimmer nanbeige nemotron nemotron_h nemotron_h_moe neo-bert
    nomic-bert nomic-bert-moe openelm phi2 phi3 phimoe qwen qwen35 qwen35moe qwen3next refact
    spark2_5 stablelm starcoder t5 t5encoder
"""
_KEYS_LIKE_VALUES: Final = frozenset(_PARTLY.split()) | _TURN_WHOLE_HEADS - {
    "exaone-moe", "exaone4", "talkie",
}  # fmt: skip
"""Architectures that assert that keys are as long as values."""
_INTERVAL: Final = "full_attention_interval"
_SECTIONS: Final = "rope.dimension_sections"


def refuse_fatal(architecture: str, facts: Mapping[str, Any], fact: Fact) -> None:
    """Refuses what would end the process.

    Args:
        architecture: of the model.
        facts: all that the header says, by its keys.
        fact: a whole number by its key without the architecture; 0 where it is missing, of a list
            the largest.

    Raises:
        BadGgufError: in words.
    """
    layers, experts, used = fact("block_count"), fact("expert_count"), fact("expert_used_count")
    has_layers = f"{architecture}.block_count" in facts
    if has_layers and not 0 < layers <= _MOST_LAYERS:
        raise BadGgufError(f"{layers} layers cannot be true")
    if has_layers and fact("nextn_predict_layers") > layers:
        raise BadGgufError("more layers that predict than layers cannot be true")
    if experts > _MOST_EXPERTS or used > experts or (experts > 0 and used == 0):
        raise BadGgufError(f"{used} of {experts} experts cannot be true")
    if f"{architecture}.{_INTERVAL}" in facts and not fact(_INTERVAL):
        raise BadGgufError("attention in every 0th layer cannot be true")  # it is divided by
    _refuse_heads(architecture, facts, fact)


def _refuse_heads(architecture: str, facts: Mapping[str, Any], fact: Fact) -> None:
    """By how long keys and values are, and how many of their dimensions positions turn."""
    turned = fact("rope.dimension_count")
    if turned % 2 or fact("rope.dimension_count_swa") % 2:
        raise BadGgufError("an odd number of dimensions that turn cannot be true")
    sections = facts.get(f"{architecture}.{_SECTIONS}")
    if isinstance(sections, list) and not any(sections[:3]):  # pyright: ignore[reportUnknownArgumentType]
        raise BadGgufError("dimensions that turn in sections of none cannot be true")
    size = _head_size(architecture, facts, fact)
    keys, values = fact("attention.key_length") or size, fact("attention.value_length") or size
    if not keys:
        return
    if architecture in _KEYS_LIKE_VALUES and keys != values:
        raise BadGgufError(f"keys of {keys} and values of {values} dimensions cannot be true")
    longest = max(keys, values, fact("attention.key_length_mla"), fact("attention.key_length_swa"))
    most = keys if architecture in _TURN_WHOLE_HEADS else longest
    if turned > most or (turned and turned != keys and architecture in _TURN_WHOLE_HEADS):
        raise BadGgufError(f"{turned} dimensions that turn cannot be true of heads of {most}")


def _head_size(architecture: str, facts: Mapping[str, Any], fact: Fact) -> int:
    """Dimensions of a head where its keys are not told; 0 where it has none."""
    told = facts.get(f"{architecture}.attention.head_count")
    counts: list[Any] = told if isinstance(told, list) else [fact("attention.head_count")]
    # it is decided by the first layer, and layers without heads have no say in the others
    first = next((count for count in counts if isinstance(count, int) and count > 0), 0)
    return fact("embedding_length") // first if first else 0

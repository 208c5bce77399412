"""Model folders that tests make: Hugging Face layout, a few hundred kilobytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.doubles import scripted
from tests.doubles.scripted import Script
from tests.doubles.vocabulary import (
    CONTROL,
    END_OF_TEXT_ID,
    TURN_END,
    TURN_END_ID,
    TURN_START,
    TURN_START_ID,
    Vocabulary,
)

_ADVICE = {"temp": "temperature", "penalty_repeat": "repetition_penalty"}


def build(folder: Path, script: Script | None = None, **config: Any) -> Path:
    """The scripted model of `tests.doubles.models`, as a folder of safetensors."""
    script = script or Script()
    vocabulary = Vocabulary(script.words, script.markers)
    embedding, output = scripted._tables(script, vocabulary)
    width, random = script.width, np.random.default_rng(script.seed + 1)
    inner = 32
    tensors = {
        "model.embed_tokens.weight": embedding,
        "lm_head.weight": output,
        "model.norm.weight": np.ones(width),
        "model.layers.0.input_layernorm.weight": np.ones(width),
        "model.layers.0.post_attention_layernorm.weight": np.ones(width),
        "model.layers.0.self_attn.o_proj.weight": np.zeros((width, width)),
        "model.layers.0.mlp.gate_proj.weight": np.zeros((inner, width)),
        "model.layers.0.mlp.up_proj.weight": np.zeros((inner, width)),
        "model.layers.0.mlp.down_proj.weight": np.zeros((width, inner)),
    }
    for name in "qkv":
        values = random.standard_normal((width, width)) / width**0.5
        tensors[f"model.layers.0.self_attn.{name}_proj.weight"] = values
    place = folder / script.name
    write(
        place,
        tensors,
        config={
            **_llama(len(vocabulary), width, inner, layers=1, heads=4, context=script.context),
            **config,
        },
        tokenizer=tokenizer(vocabulary, script.markers),
        chat_template=script.chat_template,
        advice={_ADVICE.get(key, key): value for key, value in script.sampling.items()},
    )
    return place


def build_random(
    folder: Path,
    *,
    seed: int = 0,
    layers: int = 2,
    said: int | None = None,
    markers: Sequence[str] = (),
    heads: tuple[int, int] = (2, 1),
    **config: Any,
) -> Path:
    """A Llama with random weights, whose every token depends on all before it.

    Of so many tokens two are often equally likely in half precision; with few that it ever says
    (`said`) this is rare. Of its heads those for keys and values are the second number.
    """
    vocabulary = Vocabulary(markers=markers)
    kv_heads, head = heads[1], 32
    width, inner = heads[0] * head, 2 * heads[0] * head
    random = np.random.default_rng(seed)

    def matrix(rows: int, columns: int) -> Any:
        return random.standard_normal((rows, columns)) / columns**0.5

    tensors = {
        "model.embed_tokens.weight": random.standard_normal((len(vocabulary), width)),
        "lm_head.weight": matrix(len(vocabulary), width) * 4,
        "model.norm.weight": np.ones(width),
    }
    if said is not None:
        tensors["lm_head.weight"][said:] = 0
    for layer in range(layers):
        at = f"model.layers.{layer}"
        tensors |= {
            f"{at}.input_layernorm.weight": np.ones(width),
            f"{at}.post_attention_layernorm.weight": np.ones(width),
            f"{at}.self_attn.q_proj.weight": matrix(width, width) * 2,
            f"{at}.self_attn.k_proj.weight": matrix(kv_heads * head, width) * 2,
            f"{at}.self_attn.v_proj.weight": matrix(kv_heads * head, width),
            f"{at}.self_attn.o_proj.weight": matrix(width, width),
            f"{at}.mlp.gate_proj.weight": matrix(inner, width),
            f"{at}.mlp.up_proj.weight": matrix(inner, width),
            f"{at}.mlp.down_proj.weight": matrix(width, inner),
        }
    base = _llama(len(vocabulary), width, inner, layers=layers, heads=heads[0], context=4096)
    base["num_key_value_heads"] = kv_heads
    write(
        folder,
        tensors,
        config={**base, **config},
        tokenizer=tokenizer(vocabulary, markers),
    )
    return folder


def tie(folder: Path) -> None:
    """Takes the head away; the embedding is the head, as the file then says."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    _json(folder / "config.json", {**config, "tie_word_embeddings": True})


def write(
    folder: Path,
    tensors: Mapping[str, Any],
    *,
    config: Mapping[str, Any],
    tokenizer: Mapping[str, Any],
    chat_template: str | None = None,
    advice: Mapping[str, float] | None = None,
) -> None:
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: np.ascontiguousarray(values, np.float16) for name, values in tensors.items()},
        folder / "model.safetensors",
    )
    tokenizer_config = {"bos_token": TURN_START, "eos_token": TURN_END, "add_bos_token": False}
    if chat_template is not None:
        tokenizer_config["chat_template"] = chat_template
    _json(folder / "config.json", config)
    _json(folder / "tokenizer.json", tokenizer)
    _json(folder / "tokenizer_config.json", tokenizer_config)
    _json(folder / "generation_config.json", {"eos_token_id": [TURN_END_ID], **(advice or {})})


def tokenizer(vocabulary: Vocabulary, markers: Sequence[str] = ()) -> dict[str, Any]:
    """The vocabulary as `tokenizer.json`: bytes, no merges, so that words are never read."""
    ids = {token: i for i, token in enumerate(vocabulary.tokens)}
    added = [
        {
            "id": ids[token],
            "content": token,
            "special": token in CONTROL,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
        }
        for token in (*CONTROL, *markers)
    ]
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": False,
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": ids,
            "merges": [],
        },
    }


def _llama(
    vocabulary: int, width: int, inner: int, *, layers: int, heads: int, context: int
) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "vocab_size": vocabulary,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "hidden_act": "silu",
        "bos_token_id": TURN_START_ID,
        "eos_token_id": TURN_END_ID,
        "pad_token_id": END_OF_TEXT_ID,
        "tie_word_embeddings": False,
        "torch_dtype": "float16",
    }


def _json(file: Path, content: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(content), encoding="utf-8")

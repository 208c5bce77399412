"""The tiny BERT once more, as a Hugging Face folder: same weights under Hugging Face's names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np

_TOP = {
    "token_embd": "word_embeddings",
    "token_types": "token_type_embeddings",
    "position_embd": "position_embeddings",
    "token_embd_norm": "LayerNorm",
}
_BLOCK = {
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense",
    "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
}


def build(folder: Path, source: Path, *, prefix: str = "", dtype: str = "F32") -> Path:
    """Writes the folder from the GGUF file that `tiny_bert` wrote, and returns its path."""
    reader = gguf.GGUFReader(source)
    tensors = {prefix + _name(one.name): np.array(one.data) for one in reader.tensors}
    tensors[f"{prefix}pooler.dense.bias"] = np.zeros(4, np.float32)
    folder.mkdir()
    _write_safetensors(folder / "model.safetensors", tensors, dtype)
    words = tensors[f"{prefix}embeddings.word_embeddings.weight"]
    config = {
        "model_type": "bert",
        "hidden_size": words.shape[1],
        "num_hidden_layers": reader.fields["bert.block_count"].contents(),
        "num_attention_heads": reader.fields["bert.attention.head_count"].contents(),
        "intermediate_size": reader.fields["bert.feed_forward_length"].contents(),
        "max_position_embeddings": reader.fields["bert.context_length"].contents(),
        "vocab_size": words.shape[0],
        "layer_norm_eps": 1e-12,
    }
    (folder / "config.json").write_text(json.dumps(config))
    pieces = [_piece(token) for token in reader.fields["tokenizer.ggml.tokens"].contents()]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return folder


def _name(name: str) -> str:
    *block, part, kind = name.split(".")
    if block:
        return f"encoder.layer.{block[1]}.{_BLOCK[part]}.{kind}"
    return f"embeddings.{_TOP[part]}.{kind}"


def _piece(token: str) -> str:
    if token.startswith("["):
        return token
    return token.removeprefix("▁") if token.startswith("▁") else f"##{token}"


def _write_safetensors(path: Path, tensors: dict[str, np.ndarray[Any, Any]], dtype: str) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, values in tensors.items():
        if dtype == "BF16":
            data = (np.ascontiguousarray(values, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
        else:
            data = values.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()
        place = [len(body), len(body) + len(data)]
        header[name] = {"dtype": dtype, "shape": values.shape, "data_offsets": place}
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)

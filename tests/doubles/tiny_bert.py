"""A BERT encoder of random weights that embeds texts: word pieces, mean pooling, 32 dimensions."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

WIDTH = 32
_HEADS, _LAYERS, _FEED_FORWARD = 2, 2, 64
_WORDS = ("cat", "dog", "stock", "market", "the", "is", "pet", "of", "money")


def build(
    path: Path,
    *,
    context: int = 64,
    seed: int = 0,
    pooling: gguf.PoolingType = gguf.PoolingType.MEAN,
) -> Path:
    """Writes the model and returns its path."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    # In GGUF a word's first piece is marked, unlike in BERT's own files.
    tokens += [f"▁{w}" for w in (*_WORDS, *letters, ".", ",", "!")] + letters
    types = [gguf.TokenType.CONTROL] * 5 + [gguf.TokenType.NORMAL] * (len(tokens) - 5)
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("tiny-bert")
    writer.add_context_length(context)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_layer_norm_eps(1e-12)
    writer.add_causal_attention(False)
    writer.add_pooling_type(pooling)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_token_type_count(2)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_unk_token_id(1)
    writer.add_pad_token_id(0)
    writer.add_uint32("tokenizer.ggml.cls_token_id", 2)
    writer.add_bos_token_id(2)
    writer.add_sep_token_id(3)
    writer.add_eos_token_id(3)
    writer.add_mask_token_id(4)
    random = np.random.default_rng(seed)

    def matrix(name: str, rows: int, columns: int) -> None:
        writer.add_tensor(
            name, (random.standard_normal((rows, columns)) * columns**-0.5).astype(np.float32)
        )

    def vector(name: str, size: int, value: float) -> None:
        # None is like another, so that one in the place of another shows.
        noise = random.standard_normal(size) * 0.1
        writer.add_tensor(name, (value + noise).astype(np.float32))

    def norm(name: str) -> None:
        vector(f"{name}.weight", WIDTH, 1.0)
        vector(f"{name}.bias", WIDTH, 0.0)

    def linear(name: str, rows: int, columns: int) -> None:
        matrix(f"{name}.weight", rows, columns)
        vector(f"{name}.bias", rows, 0.0)

    matrix("token_embd.weight", len(tokens), WIDTH)
    matrix("token_types.weight", 2, WIDTH)
    matrix("position_embd.weight", context, WIDTH)
    norm("token_embd_norm")
    for layer in range(_LAYERS):
        block = f"blk.{layer}"
        for part in ("attn_q", "attn_k", "attn_v", "attn_output"):
            linear(f"{block}.{part}", WIDTH, WIDTH)
        norm(f"{block}.attn_output_norm")
        linear(f"{block}.ffn_up", _FEED_FORWARD, WIDTH)
        linear(f"{block}.ffn_down", WIDTH, _FEED_FORWARD)
        norm(f"{block}.layer_output_norm")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path

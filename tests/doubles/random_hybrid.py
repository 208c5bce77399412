"""Small models of random weights whose cache is not keys and values of every token.

As with `random_llama` the next token depends on the whole context, so that a wrong state shows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np

from tests.doubles.vocabulary import CHATML, Vocabulary

WINDOW = 64
_WIDTH, _HEADS, _KV_HEADS, _FEED_FORWARD = 64, 4, 2, 128
_HEAD = _WIDTH // _HEADS
_CONVOLUTION = 3
_STATE = 16

Add = Callable[..., None]


class _Writer:
    """Writes one model; its tensors are drawn from one seed."""

    def __init__(
        self, path: Path, architecture: str, *, layers: int, seed: int, embedding_scale: float = 1.0
    ) -> None:
        self._random = np.random.default_rng(seed)
        self.vocabulary = Vocabulary()
        self.gguf = gguf.GGUFWriter(path, architecture)
        self.gguf.add_name(f"{architecture}-{seed}")
        self.gguf.add_context_length(2048)
        self.gguf.add_embedding_length(_WIDTH)
        self.gguf.add_block_count(layers)
        self.gguf.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
        self.vocabulary.write(self.gguf, CHATML)
        self.half("token_embd.weight", len(self.vocabulary), _WIDTH, embedding_scale)
        self.half("output.weight", len(self.vocabulary), _WIDTH, 3 * _WIDTH**-0.5)

    def half(self, name: str, rows: int, columns: int, scale: float | None = None) -> None:
        values = self._random.standard_normal((rows, columns)) * (scale or columns**-0.5)
        self.gguf.add_tensor(name, values.astype(np.float16))

    def drawn(self, name: str, *shape: int) -> None:
        self.gguf.add_tensor(name, self._random.standard_normal(shape).astype(np.float32))

    def ones(self, name: str, size: int) -> None:
        self.gguf.add_tensor(name, np.ones(size, np.float32))

    def attention(self, block: str) -> None:
        self.half(f"{block}.attn_q.weight", _WIDTH, _WIDTH)
        self.half(f"{block}.attn_k.weight", _HEAD * _KV_HEADS, _WIDTH)
        self.half(f"{block}.attn_v.weight", _HEAD * _KV_HEADS, _WIDTH)
        self.half(f"{block}.attn_output.weight", _WIDTH, _WIDTH)
        self.ones(f"{block}.attn_q_norm.weight", _HEAD)
        self.ones(f"{block}.attn_k_norm.weight", _HEAD)

    def feed_forward(self, block: str) -> None:
        self.ones(f"{block}.attn_norm.weight", _WIDTH)
        self.ones(f"{block}.ffn_norm.weight", _WIDTH)
        self.half(f"{block}.ffn_gate.weight", _FEED_FORWARD, _WIDTH)
        self.half(f"{block}.ffn_up.weight", _FEED_FORWARD, _WIDTH)
        self.half(f"{block}.ffn_down.weight", _WIDTH, _FEED_FORWARD)

    def finish(self) -> None:
        self.gguf.write_header_to_file()
        self.gguf.write_kv_data_to_file()
        self.gguf.write_tensors_to_file()
        self.gguf.close()


def build_hybrid(path: Path, *, seed: int = 0, turned: int = 0) -> Path:
    """Writes an LFM2: two layers with a recurrent state and one with attention.

    Args:
        path: of the file.
        seed: of the weights.
        turned: dimensions of each head that positions turn; 0: nothing is said of it.
    """
    writer = _Writer(path, "lfm2", layers=3, seed=seed)
    writer.gguf.add_feed_forward_length(_FEED_FORWARD)
    writer.gguf.add_head_count(_HEADS)
    writer.gguf.add_head_count_kv([0, _KV_HEADS, 0])
    writer.gguf.add_layer_norm_rms_eps(1e-5)
    writer.gguf.add_shortconv_l_cache(_CONVOLUTION)
    if turned:
        writer.gguf.add_rope_dimension_count(turned)
    writer.ones("token_embd_norm.weight", _WIDTH)
    for layer in range(3):
        block = f"blk.{layer}"
        writer.feed_forward(block)
        if layer == 1:
            writer.attention(block)
            continue
        writer.drawn(f"{block}.shortconv.conv.weight", _WIDTH, _CONVOLUTION)
        writer.half(f"{block}.shortconv.in_proj.weight", 3 * _WIDTH, _WIDTH)
        writer.half(f"{block}.shortconv.out_proj.weight", _WIDTH, _WIDTH)
    writer.finish()
    return path


def build_recurrent(path: Path, *, seed: int = 0) -> Path:
    """Writes a Mamba: its state is all that it remembers."""
    writer = _Writer(path, "mamba", layers=2, seed=seed)
    inner, rank = 2 * _WIDTH, 8
    writer.gguf.add_feed_forward_length(0)
    writer.gguf.add_head_count(0)
    writer.gguf.add_layer_norm_rms_eps(1e-5)
    writer.gguf.add_ssm_conv_kernel(4)
    writer.gguf.add_ssm_inner_size(inner)
    writer.gguf.add_ssm_state_size(_STATE)
    writer.gguf.add_ssm_time_step_rank(rank)
    writer.ones("output_norm.weight", _WIDTH)
    for layer in range(2):
        block = f"blk.{layer}"
        writer.ones(f"{block}.attn_norm.weight", _WIDTH)
        writer.half(f"{block}.ssm_in.weight", 2 * inner, _WIDTH)
        writer.drawn(f"{block}.ssm_conv1d.weight", inner, 4)
        writer.drawn(f"{block}.ssm_conv1d.bias", inner)
        writer.half(f"{block}.ssm_x.weight", rank + 2 * _STATE, inner)
        writer.half(f"{block}.ssm_dt.weight", inner, rank)
        writer.drawn(f"{block}.ssm_dt.bias", inner)
        writer.gguf.add_tensor(
            f"{block}.ssm_a", -np.tile(np.arange(1, _STATE + 1, dtype=np.float32), (inner, 1))
        )
        writer.ones(f"{block}.ssm_d", inner)
        writer.half(f"{block}.ssm_out.weight", _WIDTH, inner)
    writer.finish()
    return path


def build_windowed(path: Path, *, seed: int = 0) -> Path:
    """Writes a Gemma 3 of six layers, of which five see the last `WINDOW` tokens alone."""
    # its embeddings are multiplied by the root of the width, and would drown the context
    writer = _Writer(path, "gemma3", layers=6, seed=seed, embedding_scale=0.3 * _WIDTH**-0.5)
    writer.gguf.add_feed_forward_length(_FEED_FORWARD)
    writer.gguf.add_head_count(_HEADS)
    writer.gguf.add_head_count_kv(_KV_HEADS)
    writer.gguf.add_key_length(_HEAD)
    writer.gguf.add_value_length(_HEAD)
    writer.gguf.add_layer_norm_rms_eps(1e-5)
    writer.gguf.add_sliding_window(WINDOW)
    writer.ones("output_norm.weight", _WIDTH)
    for layer in range(6):
        block = f"blk.{layer}"
        writer.feed_forward(block)
        writer.attention(block)
        writer.ones(f"{block}.post_attention_norm.weight", _WIDTH)
        writer.ones(f"{block}.post_ffw_norm.weight", _WIDTH)
    writer.finish()
    return path

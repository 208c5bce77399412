"""A Llama of random weights, 220 KB: babbles bytes, so its output is often no valid UTF-8.

Unlike the scripted model its next token depends on the whole context, so that a wrong cache shows.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from tests.doubles.vocabulary import CHATML, Vocabulary

_WIDTH, _HEADS, _KV_HEADS, _LAYERS, _FEED_FORWARD = 64, 4, 2, 2, 128


def build(
    path: Path,
    *,
    seed: int = 0,
    context: int = 2048,
    nan: bool = False,
    overflows: bool = False,
    tensors_per_file: int = 0,
) -> Path:
    """Writes the model and returns its path.

    Args:
        path: of the file; of a model in several files, the name before `-00001-of-…`.
        seed: of the weights.
        context: longest context in tokens.
        nan: one weight is NaN.
        overflows: every weight is a number, and every output is not.
        tensors_per_file: splits the model; 0 writes one file.
    """
    random = np.random.default_rng(seed)
    vocabulary = Vocabulary()
    writer = gguf.GGUFWriter(path, "llama", split_max_tensors=tensors_per_file)
    writer.add_name(f"random-{seed}")
    writer.add_context_length(context)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(_LAYERS)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KV_HEADS)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    vocabulary.write(writer, CHATML)

    def half(name: str, rows: int, columns: int, scale: float | None = None) -> None:
        values = random.standard_normal((rows, columns)) * (scale or columns**-0.5)
        if nan and name == "blk.1.ffn_up.weight":
            values[0, 0] = np.nan
        writer.add_tensor(name, values.astype(np.float16))

    half("token_embd.weight", len(vocabulary), _WIDTH, 1.0)
    half("output.weight", len(vocabulary), _WIDTH, 3 * _WIDTH**-0.5)
    writer.add_tensor("output_norm.weight", np.full(_WIDTH, 3e38 if overflows else 1, np.float32))
    kv_width = _WIDTH // _HEADS * _KV_HEADS
    for layer in range(_LAYERS):
        block = f"blk.{layer}"
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{block}.{norm}.weight", np.ones(_WIDTH, np.float32))
        half(f"{block}.attn_q.weight", _WIDTH, _WIDTH)
        half(f"{block}.attn_k.weight", kv_width, _WIDTH)
        half(f"{block}.attn_v.weight", kv_width, _WIDTH)
        half(f"{block}.attn_output.weight", _WIDTH, _WIDTH)
        half(f"{block}.ffn_gate.weight", _FEED_FORWARD, _WIDTH)
        half(f"{block}.ffn_up.weight", _FEED_FORWARD, _WIDTH)
        half(f"{block}.ffn_down.weight", _WIDTH, _FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return next(path.parent.glob(f"{path.stem}-00001-of-*.gguf")) if tensors_per_file else path

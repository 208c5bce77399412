"""A Llama of random weights whose blocks have experts: half of its bytes are theirs."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

from tests.doubles.vocabulary import CHATML, Vocabulary

LAYERS = 4
_WIDTH, _HEADS, _KV_HEADS, _FEED_FORWARD = 64, 4, 2, 128
_EXPERTS, _USED = 4, 2


def build(path: Path, *, seed: int = 0, context: int = 2048) -> Path:
    """Writes the model and returns its path.

    Args:
        path: of the file.
        seed: of the weights.
        context: longest context in tokens.
    """
    random = np.random.default_rng(seed)
    vocabulary = Vocabulary()
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(f"mixture-{seed}")
    writer.add_context_length(context)
    writer.add_embedding_length(_WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(_FEED_FORWARD)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_KV_HEADS)
    writer.add_rope_dimension_count(_WIDTH // _HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_expert_count(_EXPERTS)
    writer.add_expert_used_count(_USED)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    vocabulary.write(writer, CHATML)

    def half(name: str, *shape: int) -> None:
        values = random.standard_normal(shape) * shape[-1] ** -0.5
        writer.add_tensor(name, values.astype(np.float16))

    half("token_embd.weight", len(vocabulary), _WIDTH)
    half("output.weight", len(vocabulary), _WIDTH)
    writer.add_tensor("output_norm.weight", np.ones(_WIDTH, np.float32))
    kv_width = _WIDTH // _HEADS * _KV_HEADS
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{block}.{norm}.weight", np.ones(_WIDTH, np.float32))
        half(f"{block}.attn_q.weight", _WIDTH, _WIDTH)
        half(f"{block}.attn_k.weight", kv_width, _WIDTH)
        half(f"{block}.attn_v.weight", kv_width, _WIDTH)
        half(f"{block}.attn_output.weight", _WIDTH, _WIDTH)
        gate = random.standard_normal((_EXPERTS, _WIDTH)).astype(np.float32)
        writer.add_tensor(f"{block}.ffn_gate_inp.weight", gate)
        half(f"{block}.ffn_gate_exps.weight", _EXPERTS, _FEED_FORWARD, _WIDTH)
        half(f"{block}.ffn_up_exps.weight", _EXPERTS, _FEED_FORWARD, _WIDTH)
        half(f"{block}.ffn_down_exps.weight", _EXPERTS, _WIDTH, _FEED_FORWARD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path

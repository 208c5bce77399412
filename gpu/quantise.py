"""A 4-bit GPTQ copy of a 16-bit Llama by rounding to nearest, and random 4-bit Llamas of any size.

For the proof only: rounding to nearest costs quality, and the random model says nothing.
Source of the layout: exllamav2 0.3.2 `make_q_matrix`, AutoGPTQ's v1 checkpoint format.
"""

from __future__ import annotations

import json
import pathlib
import shutil
from typing import Any

import torch
from safetensors.torch import load_file, save_file

_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_SMALL_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "chat_template.jinja",
)


def gptq_copy(source: pathlib.Path, target: pathlib.Path, *, group: int = 32) -> None:
    """Writes a 4-bit copy of a folder with one `model.safetensors`."""
    target.mkdir(parents=True, exist_ok=True)
    made: dict[str, Any] = {}
    for name, weight in load_file(source / "model.safetensors").items():
        if name.endswith(".weight") and name.split(".")[-2] in _LINEAR:
            stem = name.removesuffix("weight")
            packed = _rounded(weight, group).items()
            made.update({stem + part: tensor for part, tensor in packed})
        else:
            made[name] = weight
    save_file(made, target / "model.safetensors")
    _copy_small(source, target)
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": group}
    (target / "config.json").write_text(json.dumps(config))


def random_llama(
    target: pathlib.Path,
    *,
    layers: int,
    hidden: int,
    inner: int,
    heads: int,
    kv_heads: int,
    vocabulary: int,
    device: str,
    group: int = 128,
) -> None:
    """Writes a random 4-bit Llama with a tokeniser of bytes, filled up to the vocabulary."""
    target.mkdir(parents=True, exist_ok=True)
    random = torch.Generator(device).manual_seed(0)
    dim = hidden // heads

    def linear(inputs: int, outputs: int) -> dict[str, Any]:
        bits = {"generator": random, "device": device, "dtype": torch.int32}
        size = (inputs // 8, outputs)
        scale = 0.25 / inputs**0.5
        return {
            "qweight": torch.randint(-(2**31), 2**31 - 1, size, **bits),
            "qzeros": torch.full((inputs // group, outputs // 8), 0x77777777, dtype=torch.int32),
            "scales": torch.full((inputs // group, outputs), scale, dtype=torch.float16),
        }

    def half(*size: int) -> Any:
        return (torch.randn(*size, generator=random, device=device) * 0.02).half()

    made: dict[str, Any] = {
        "model.embed_tokens.weight": half(vocabulary, hidden),
        "lm_head.weight": half(vocabulary, hidden),
        "model.norm.weight": torch.ones(hidden).half(),
    }
    shapes = {
        "self_attn.q_proj": (hidden, heads * dim),
        "self_attn.k_proj": (hidden, kv_heads * dim),
        "self_attn.v_proj": (hidden, kv_heads * dim),
        "self_attn.o_proj": (heads * dim, hidden),
        "mlp.gate_proj": (hidden, inner),
        "mlp.up_proj": (hidden, inner),
        "mlp.down_proj": (inner, hidden),
    }
    for layer in range(layers):
        at = f"model.layers.{layer}."
        for name, (inputs, outputs) in shapes.items():
            packed = linear(inputs, outputs).items()
            made.update({f"{at}{name}.{part}": tensor for part, tensor in packed})
        for name in ("input_layernorm", "post_attention_layernorm"):
            made[f"{at}{name}.weight"] = torch.ones(hidden).half()
    save_file({k: v.cpu().contiguous() for k, v in made.items()}, target / "model.safetensors")
    _write_tokenizer(target, vocabulary)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
        "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "head_dim": dim, "vocab_size": vocabulary,
        "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "max_position_embeddings": 32768,
        "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
        "torch_dtype": "float16",
        "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": group},
    }  # fmt: skip
    (target / "config.json").write_text(json.dumps(config))


def _rounded(weight: Any, group: int) -> dict[str, Any]:
    """GPTQ v1 tensors of an (out, in) weight: asymmetric 4 bit, groups along `in`."""
    wide = weight.float()
    outputs, inputs = wide.shape
    groups = wide.view(outputs, inputs // group, group)
    low, high = groups.amin(-1).clamp(max=0), groups.amax(-1).clamp(min=0)
    scale = ((high - low) / 15).clamp(min=1e-6).half().float()
    zero = (-low / scale).round().clamp(1, 15)  # stored as zero - 1
    whole = (groups / scale[..., None]).round() + zero[..., None]
    levels = whole.clamp(0, 15).view(outputs, inputs).to(torch.int32)
    shifts = torch.arange(0, 32, 4, dtype=torch.int32)
    rows = levels.t().contiguous().view(inputs // 8, 8, outputs)
    zeros = (zero - 1).to(torch.int32).t().contiguous()
    zeros = zeros.view(inputs // group, outputs // 8, 8)
    return {
        "qweight": _as_int32((rows << shifts[None, :, None]).sum(1, dtype=torch.int64)),
        "qzeros": _as_int32((zeros << shifts).sum(-1, dtype=torch.int64)),
        "scales": scale.t().half().contiguous(),
        "g_idx": torch.arange(inputs, dtype=torch.int32) // group,
    }


def _as_int32(bits: Any) -> Any:
    low = bits & 0xFFFFFFFF
    return low.where((low & 0x80000000) == 0, low - 2**32).to(torch.int32).contiguous()


def _write_tokenizer(target: pathlib.Path, size: int) -> None:
    from tests.doubles.vocabulary import TURN_END, TURN_START, Vocabulary
    from tests.engines.exllamav2.folders import tokenizer

    known = Vocabulary()
    known.tokens += [f"filler{n}" for n in range(size - len(known.tokens))]
    settings = {"bos_token": TURN_START, "eos_token": TURN_END, "add_bos_token": False}
    (target / "tokenizer.json").write_text(json.dumps(tokenizer(known)))
    (target / "tokenizer_config.json").write_text(json.dumps(settings))


def _copy_small(source: pathlib.Path, target: pathlib.Path) -> None:
    for name in _SMALL_FILES:
        if (source / name).is_file():
            shutil.copy(source / name, target)

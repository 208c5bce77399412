"""Models that normalise the queries and keys of each head, against the arithmetic of their papers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from services.neuron.engine_api.events import Delta
from tests.contract.engine.driving import run
from tests.engines.exllamav2 import folders
from tests.engines.exllamav2.loading_models import task

HEADS, KV_HEADS, WIDTH, LAYERS = 4, 2, 32, 2
EPSILON = 1e-6


def qwen3(folder: Path) -> Path:
    """A random Qwen3 whose queries and keys have a mean far from 0, which RMS norms keep."""
    folders.build_random(
        folder, heads=(HEADS, KV_HEADS), architectures=["Qwen3ForCausalLM"], model_type="qwen3",
        head_dim=WIDTH,
    )  # fmt: skip
    file, random = folder / "model.safetensors", np.random.default_rng(7)
    tensors = load_file(file)
    for layer in range(LAYERS):
        at = f"model.layers.{layer}.self_attn"
        for name, heads in (("q", HEADS), ("k", KV_HEADS)):
            gains = 1 + 0.2 * random.standard_normal(WIDTH)
            tensors[f"{at}.{name}_norm.weight"] = gains.astype(np.float16)
            matrix = tensors[f"{at}.{name}_proj.weight"].reshape(heads, WIDTH, -1)
            matrix += matrix[:, :1]
    save_file(tensors, file)
    return folder


def rms(states: Any, gains: Any) -> Any:
    return states * torch.rsqrt(states.pow(2).mean(-1, keepdim=True) + EPSILON) * gains


def turned(states: Any, base: float) -> Any:
    """By the rotary embedding; the second dimension is the position."""
    steps = base ** (-torch.arange(0, WIDTH, 2) / WIDTH)
    angles = torch.arange(states.shape[1])[:, None] * steps
    cos, sin = (each.repeat(1, 2) for each in (angles.cos(), angles.sin()))
    half = WIDTH // 2
    return states * cos + torch.cat((-states[..., half:], states[..., :half]), -1) * sin


def log_probabilities(folder: Path, ids: list[int], norm: Callable[[Any, Any], Any]) -> Any:
    """Of the next token, in single precision; `norm` is that of the heads."""
    loaded = load_file(folder / "model.safetensors")
    tensors = {name: torch.from_numpy(value).float() for name, value in loaded.items()}
    base = json.loads((folder / "config.json").read_text())["rope_theta"]
    length = len(ids)
    states = tensors["model.embed_tokens.weight"][ids]
    for layer in range(LAYERS):

        def of(name: str, at: str = f"model.layers.{layer}") -> Any:
            return tensors[f"{at}.{name}.weight"]

        inner = rms(states, of("input_layernorm"))
        q, k, v = (
            (inner @ of(f"self_attn.{name}_proj").T).view(length, -1, WIDTH).transpose(0, 1)
            for name in "qkv"
        )
        q = turned(norm(q, of("self_attn.q_norm")), base)
        k = turned(norm(k, of("self_attn.k_norm")), base).repeat_interleave(HEADS // KV_HEADS, 0)
        scores = q @ k.transpose(1, 2) / math.sqrt(WIDTH)
        scores += torch.full((length, length), -math.inf).triu(1)
        seen = scores.softmax(-1) @ v.repeat_interleave(HEADS // KV_HEADS, 0)
        seen = seen.transpose(0, 1).reshape(length, -1)
        states = states + seen @ of("self_attn.o_proj").T
        inner = rms(states, of("post_attention_layernorm"))
        gate = torch.nn.functional.silu(inner @ of("mlp.gate_proj").T)
        states = states + (gate * (inner @ of("mlp.up_proj").T)) @ of("mlp.down_proj").T
    last = rms(states[-1], tensors["model.norm.weight"])
    return (last @ tensors["lm_head.weight"].T).log_softmax(-1)


def test_qwen3_keeps_the_mean_of_queries_and_keys(loaded: Any, tmp_path: Path) -> None:
    folder = qwen3(tmp_path / "qwen3")
    ids = [3 + byte for byte in b"once upon a time"]
    asked = task(ids, tokens=1, top_logprobs=8)

    (delta,) = [one for one in run(loaded(folder), asked) if isinstance(one, Delta)]

    found = {each.token_id: each.logprob for each in delta.logprobs[0].alternatives}
    expected, without_means = (
        {each: float(made[each]) for each in found}
        for made in (
            log_probabilities(folder, ids, rms),
            log_probabilities(
                folder, ids, lambda x, gains: rms(x - x.mean(-1, keepdim=True), gains)
            ),
        )
    )
    assert found == pytest.approx(expected, abs=0.05)
    assert found != pytest.approx(without_means, abs=0.5)  # the library's own choice

"""Quantised copies of a model folder, and 16-bit ones of exactly the weights that they hold."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

_GROUP = 32
Packer = Callable[[Any], tuple[dict[str, Any], Any]]
"""Takes (in, out) weights; gives the format's tensors and the weights that they mean."""


def write(source: Path, target: Path, pack: Packer, **quantization: Any) -> tuple[Path, Path]:
    """Writes both copies and returns their folders."""
    dense = target.with_name(f"{target.name}-dense")
    packed: dict[str, Any] = {}
    meant: dict[str, Any] = {}
    for name, weight in load_file(source / "model.safetensors").items():
        if "_proj.weight" not in name:
            packed[name] = meant[name] = weight
            continue
        tensors, values = pack(weight.float().t())
        packed |= {f"{name.removesuffix('weight')}{key}": t for key, t in tensors.items()}
        meant[name] = values.t().half().contiguous()
    for folder, contents in ((target, packed), (dense, meant)):
        shutil.copytree(source, folder)
        save_file(contents, folder / "model.safetensors")
    config = json.loads((source / "config.json").read_text())
    settings = {"quantization_config": quantization} if quantization else {}
    (target / "config.json").write_text(json.dumps({**config, **settings}))
    return target, dense


def gptq(weight: Any) -> tuple[dict[str, Any], Any]:
    """4 bits, asymmetric, groups along the inputs as they come."""
    return _gptq(weight, torch.arange(weight.shape[0]) // _GROUP)


def gptq_by_importance(weight: Any) -> tuple[dict[str, Any], Any]:
    """The same with inputs of a group far apart (`desc_act`)."""
    order = torch.randperm(weight.shape[0], generator=torch.Generator().manual_seed(3))
    return _gptq(weight, (torch.arange(weight.shape[0]) // _GROUP)[order])


def exl2(weight: Any) -> tuple[dict[str, Any], Any]:
    """8 bits for the first group of inputs in an order of its own, 4 for the others."""
    inputs = weight.shape[0]
    order = torch.randperm(inputs, generator=torch.Generator().manual_seed(4))
    groups = inputs // _GROUP
    bits = [8, *[4] * (groups - 1)]
    parts: dict[str, list[Any]] = {"q_weight": [], "q_scale": [], "q_scale_max": []}
    starts, row, meant = [], 0, []
    for width, part in zip(bits, weight[order].split(_GROUP), strict=True):
        wanted = part.abs().amax(0) / (2 ** (width - 1) - 1)
        most = (wanted.amax()).half().float()
        level = ((wanted / most).sqrt() * 16).ceil().clamp(1, 16) - 1
        scale = (level + 1) ** 2 / 256 * most
        whole = (part / scale).round().clamp(1 - 2 ** (width - 1), 2 ** (width - 1) - 1)
        words = _packed(whole.long() + 2 ** (width - 1), width, 0)
        parts["q_weight"].append(words)
        parts["q_scale"].append(_packed(level.long()[None], 4, 1))
        parts["q_scale_max"].append(most[None].half())
        meant.append(whole * scale)
        starts += [width, row]
        row += words.shape[0]
    tensors = {name: torch.cat(found) for name, found in parts.items()}
    tensors["q_groups"] = torch.tensor(starts, dtype=torch.int16)
    tensors["q_invperm"] = order.argsort().int()
    return tensors, torch.cat(meant)[order.argsort()]


def _gptq(weight: Any, group: Any) -> tuple[dict[str, Any], Any]:
    inputs, outputs = weight.shape
    count = inputs // _GROUP
    low, high = torch.zeros(count, outputs), torch.zeros(count, outputs)
    for number in range(count):
        part = weight[group == number]
        low[number], high[number] = part.amin(0).clamp(max=0), part.amax(0).clamp(min=0)
    scale = ((high - low) / 15).clamp(min=1e-6).half().float()
    zero = (-low / scale).round().clamp(1, 15)
    levels = ((weight / scale[group]).round() + zero[group]).clamp(0, 15)
    tensors = {
        "qweight": _packed(levels.long(), 4, 0),
        "qzeros": _packed(zero.long() - 1, 4, 1),
        "scales": scale.half(),
        "g_idx": group.int(),
    }
    return tensors, (levels - zero[group]) * scale[group]


def _packed(numbers: Any, bits: int, axis: int) -> Any:
    """int32 words of unsigned numbers along an axis, lowest bits first."""
    per_word = 32 // bits
    split = numbers.unflatten(axis, (-1, per_word))
    shifts = torch.arange(0, 32, bits).view(-1, *[1] * (split.dim() - axis - 2))
    words = (split << shifts).sum(axis + 1)
    return words.where(words < 2**31, words - 2**32).int().contiguous()

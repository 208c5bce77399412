"""What unquantised models, the generator and the sampler call in ExLlamaV2's extension, on a CPU."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def stloader_read(file: str, offset: int, size: int, target: Any) -> None:
    import torch

    with Path(file).open("rb") as stream:
        stream.seek(offset)
        data = stream.read(size)
    assert len(data) == size, "I/O error reading tensor"
    target.view(-1).view(torch.uint8).copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))


def rms_norm(x: Any, weight: Any, y: Any, epsilon: float) -> None:
    import torch

    wide = x.float()
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    y.copy_(wide * scale * weight.float())


def layer_norm(x: Any, weight: Any, bias: Any, y: Any, epsilon: float) -> None:
    import torch

    offset = None if bias.is_meta else bias.float()
    y.copy_(torch.layer_norm(x.float(), x.shape[-1:], weight.float(), offset, epsilon))


def gen_mrope_pos_ids(
    out: Any,
    ids: Any,
    merge: int,
    spans: Sequence[tuple[int, int]],
    grids: Sequence[tuple[int, int, int]],
) -> int:
    """Positions in time, height and width; a picture's begin where the text before it ends."""
    base = after = 0
    for place in range(out.shape[1]):
        token = int(ids[place]) if place < len(ids) else -1
        inside = [n for n, (first, end) in enumerate(spans) if first <= token < end]
        if not inside:
            base = after
            out[:, place] = base
            base = after = base + 1
            continue
        times, rows, columns = grids[inside[0]]
        rows, columns = rows // merge, columns // merge
        k = token - spans[inside[0]][0]
        at = (k // columns // rows % times, k // columns % rows, k % columns)
        for axis in range(3):
            out[axis, place] = base + at[axis]
        after = max(after, base + max(at) + 1)
    return after


def head_norm(x: Any, weight: Any, bias: Any, y: Any, epsilon: float, is_rms: bool) -> None:
    assert bias.is_meta
    wide = x.float()
    if not is_rms:
        wide -= wide.mean(-1, keepdim=True)
    rms_norm(wide, weight, y, epsilon)


def rope_(
    x: Any, sin: Any, cos: Any, past: int, heads: int, dim: int, offsets: Any, is_neox: bool
) -> None:
    import torch

    rows = x.view(x.shape[0], -1, heads, dim)
    sin, cos = (table.reshape(-1, table.shape[-1]) for table in (sin, cos))
    length = rows.shape[1]
    for batch, row in enumerate(rows):
        start = past
        if not offsets.is_meta:
            start = int(offsets[batch]) if past == -1 else past + int(offsets[batch])
        s = sin[start : start + length, :dim][:, None].float()
        c = cos[start : start + length, :dim][:, None].float()
        value = row.float()
        half = dim // 2
        if is_neox:
            turned = torch.cat((-value[..., half:], value[..., :half]), -1)
        else:
            turned = torch.stack((-value[..., 1::2], value[..., ::2]), -1).flatten(-2)
        rows[batch] = (value * c + turned * s).half()


def softcap_(x: Any, cap: float) -> None:
    x.copy_((x.float() / cap).tanh() * cap)


def count_match(left: Any, right: Any, longest: int) -> int:
    longest = min(longest, right.shape[1])
    if longest <= 0:
        return 0
    differs = (left[0, :longest] != right[0, :longest]).nonzero()
    return int(differs[0]) if len(differs) else int(longest)


def partial_strings_match(text: Any, offsets: Any, strings: Any) -> int:
    said = text.tobytes().decode("utf-32-le")
    places = np.frombuffer(offsets.tobytes(), dtype=np.int32)
    raw = strings.tobytes()
    wanted = [raw[a:b].decode("utf-32-le") for a, b in itertools.pairwise(places)]
    found = [said.find(one) for one in wanted if one in said]
    if found:
        return int(min(found))
    return -2 if any(said.endswith(s[:n]) for s in wanted for n in range(1, len(s))) else -1


def cache_rotate(cache: Any, order: Any, _buffer: Any) -> None:
    places = order.tolist()
    first = cache[places[0]].clone()
    for to, source in itertools.pairwise(places):
        cache[to] = cache[source]
    cache[places[-1]] = first


def fast_fill_cpu_ones_bool(target: Any) -> None:
    target.fill_(True)


def fast_fadd_cpu(target: Any, added: Any) -> None:
    target.add_(added)


def logit_filter_exclusive(allowed: Any, lists: Sequence[Sequence[int]]) -> None:
    import torch

    for row, ids in enumerate(lists):
        mask = torch.zeros(allowed.shape[-1], dtype=torch.bool)
        mask[torch.as_tensor(list(ids))] = True
        allowed[row] &= mask


def apply_rep_penalty(
    sequence: Any,
    penalty: float,
    sustain: int,
    decay: int,
    frequency: float,
    presence: float,
    logits: Any,
) -> None:
    """Without decay, over the whole sequence: all that the engine asks for."""
    assert (sustain, decay, frequency, presence) == (-1, 0, 0.0, 0.0)
    ids = sequence[0].unique()
    ids = ids[ids < logits.shape[-1]]
    seen = logits[0, 0, ids]
    logits[0, 0, ids] = seen.where(seen <= 0, seen / penalty).where(seen > 0, seen * penalty)


def sample_basic(
    logits: Any,
    temperature: float,
    top_k: int,
    top_p: float,
    top_a: float,
    min_p: float,
    tfs: float,
    typical: float,
    chance: float,
    out_tokens: Any,
    out_probs: Any,
    _out_top_probs: Any,
    _out_top_tokens: Any,
    allowed: Any,
    *_others: Any,
) -> list[float]:
    import torch

    assert not top_a
    assert not tfs
    row = logits[0, 0].clone()
    if not allowed.is_meta:
        row[~allowed.view(-1)] = -float("inf")
    if temperature < 0.01:
        temperature, top_k = 1.0, 1
    probs, ids = torch.softmax(row / temperature, -1).sort(descending=True, stable=True)
    if top_k > 0:
        probs, ids = probs[:top_k], ids[:top_k]
    if 0 < top_p < 1:
        kept = int((probs.cumsum(0) < top_p).sum()) + 1
        probs, ids = probs[:kept], ids[:kept]
    if min_p > 0:
        keep = probs >= probs[0] * min_p
        probs, ids = probs[keep], ids[keep]
    if 0 < typical < 1:
        probs, ids = _typical(torch, probs / probs.sum(), ids, typical)
    probs = probs / probs.sum()
    chosen = min(int((probs.cumsum(0) < chance).sum()), len(probs) - 1)
    out_tokens[0, 0] = ids[chosen]
    out_probs[0, 0] = probs[chosen]
    return []


def _typical(torch: Any, probs: Any, ids: Any, share: float) -> tuple[Any, Any]:
    surprise = -torch.log(probs.clamp(min=1e-10))
    order = (surprise - (probs * surprise).sum()).abs().argsort(stable=True)
    kept = int((probs[order].cumsum(0) < share).sum()) + 1
    return probs[order][:kept], ids[order][:kept]

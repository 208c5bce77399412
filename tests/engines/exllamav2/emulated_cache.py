"""Quantised caches of ExLlamaV2 on a CPU: round to nearest in groups of 32, as the kernels store.

The kernels rotate each group by a Hadamard matrix first, which costs nothing to leave out here: the
sizes and the loss are alike, the bytes are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_GROUP = 32


def fp16_to_q_kv(
    keys: Any, key_bytes: Any, key_scales: Any, values: Any, value_bytes: Any, value_scales: Any,
    batch: int, offset: int, width: int, page_size: int, lengths: Any, table: Any, _bits: int,
) -> None:  # fmt: skip
    """Stores `width` new tokens of every sequence."""
    for row in range(batch):
        begin = int(lengths[row]) if page_size else offset
        for at in _places(row, begin, begin + width, page_size, table):
            _store(keys[at], key_bytes, key_scales, at)
            _store(values[at], value_bytes, value_scales, at)


def q_to_fp16_kv(
    key_bytes: Any, keys: Any, key_scales: Any, value_bytes: Any, values: Any, value_scales: Any,
    batch: int, offset: int, width: int, page_size: int, lengths: Any, table: Any, _bits: int,
) -> None:  # fmt: skip
    """Brings what every sequence has in the cache back to 16 bits."""
    for row in range(batch):
        begin, end = (0, int(lengths[row])) if page_size else (offset, offset + width)
        for at in _places(row, begin, end, page_size, table):
            keys[at] = _read(key_bytes[at], key_scales[at], keys.shape[-1])
            values[at] = _read(value_bytes[at], value_scales[at], values.shape[-1])


def _places(
    row: int, begin: int, end: int, page_size: int, table: Any
) -> Iterator[tuple[int, slice]]:
    """Where a run of tokens lies in (batch, tokens, heads, dim) tensors, page by page."""
    if not page_size:
        yield row, slice(begin, end)
        return
    while begin < end:
        page, place = int(table[row, begin // page_size]), begin % page_size
        count = min(page_size - place, end - begin)
        first = page * page_size + place
        yield 0, slice(first, first + count)
        begin += count


def _store(x: Any, stored: Any, scales: Any, at: tuple[int, slice]) -> None:
    import torch

    bits = 8 * stored.shape[-1] // x.shape[-1]
    most = 2 ** (bits - 1) - 1
    groups = x.float().unflatten(-1, (-1, _GROUP))
    scale = (groups.abs().amax(-1) / most).clamp(min=1e-6).half()
    rounded = (groups / scale.float()[..., None]).round().clamp(-most, most) + most + 1
    whole = rounded.flatten(-2).to(torch.uint8)
    stored[at] = whole if bits == 8 else whole[..., ::2] | whole[..., 1::2] << 4
    scales[at] = scale


def _read(stored: Any, scale: Any, dim: int) -> Any:
    import torch

    bits = 8 * stored.shape[-1] // dim
    whole = stored
    if bits == 4:
        whole = torch.stack((stored & 15, stored >> 4), -1).flatten(-2)
    centred = whole.float() - 2 ** (bits - 1)
    groups = centred.unflatten(-1, (-1, _GROUP)) * scale.float()[..., None]
    return groups.flatten(-2).half()

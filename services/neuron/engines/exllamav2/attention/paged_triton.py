"""Paged attention for ExLlamaV2's cache by our Triton kernels (`kernels`): which is run how."""

from __future__ import annotations

import contextlib
from typing import Any, Final, NamedTuple

import torch
import triton

from services.neuron.engines.exllamav2.attention import kernels

_LOG2_E: Final = 1.4426950408889634
_DEFAULT_SM_COUNT: Final = 132
_DEFAULT_CAPABILITY: Final = (9, 0)
_HOPPER: Final = (9, 0)
MOST_SPLITS: Final = 128
MOST_KEYS: Final = 2048
"""Keys that one program walks through while decoding: one long sequence must not hold up a batch
whose short ones are done."""
MOST_PARTIAL_BYTES: Final = 64 << 20
"""Scratch memory per device for the partial results of split keys (`weights.ATTENTION_BYTES`)."""
_MIN_KEYS_PER_SPLIT: Final = 256
_COMBINED: Final = 16
"""Partial results that are combined at a time."""
_WIDE_HEAD: Final = 128
_TILES: Final = (16, 32, 64, 128)


def tile_rows(rows: int, padded_dim: int) -> int:
    """Rows of a tile: as few as decoding needs, as many as prefill can use."""
    if padded_dim > _WIDE_HEAD:
        rows = min(rows, 64)
    return next((size for size in _TILES if rows <= size), _TILES[-1])


def warps(block_rows: int, padded_dim: int, capability: tuple[int, int]) -> int:
    """Warps of a program: eight where four have too few registers for the tile."""
    if block_rows > 64:  # noqa: PLR2004
        return 8
    spills = capability < _HOPPER and padded_dim >= _WIDE_HEAD
    return 8 if block_rows == 64 and spills else 4  # noqa: PLR2004


def split_count(
    tiles: int, keys: int, sm_count: int, *, decodes: bool = False, bytes_per_split: int = 1
) -> int:
    """Over how many programs the keys are split.

    1. Few tiles are split so far that they fill the device, no finer than 256 keys.
    2. While decoding, no program walks through more than `MOST_KEYS`, however many tiles there are.
    3. Never more than `MOST_SPLITS`, nor than the scratch memory holds.

    Args:
        tiles: programs without splits.
        keys: of the longest sequence.
        sm_count: programs that run at once.
        decodes: a tile holds all of a sequence's new rows.
        bytes_per_split: of partial results.
    """
    wanted = 1
    if tiles < sm_count and keys > 2 * _MIN_KEYS_PER_SPLIT:
        wanted = min(max(1, 2 * sm_count // tiles), -(-keys // _MIN_KEYS_PER_SPLIT))
    if decodes:
        wanted = max(wanted, -(-keys // MOST_KEYS))
    return max(1, min(wanted, MOST_SPLITS, MOST_PARTIAL_BYTES // bytes_per_split))


class _Kind(NamedTuple):
    """What the kernels are compiled for, beside the tile and whether keys are split."""

    device: Any
    heads: int
    kv_heads: int
    dim: int
    page: int
    causal: bool
    capped: bool
    windowed: bool


class _Call(NamedTuple):
    """One call, as `stand_in.Paged` has it."""

    q: Any
    k_cache: Any
    v_cache: Any
    out: Any
    table: Any
    lengths: Any
    new: int
    scale_log2: float
    softcap: float
    window_left: int


class PagedAttention:
    """Our kernels, with the scratch memory for split keys.

    One object serves every layer of a process: calls on a device run one after another on one
    stream, so the scratch memory can be shared. The first call of a kind compiles every variant
    that any later one may take: the trial of a load makes it, and nobody waits in the middle of
    serving.
    """

    def __init__(self) -> None:
        self._scratch: dict[Any, Any] = {}
        self._devices: dict[Any, tuple[int, tuple[int, int]]] = {}
        self._compiled: set[_Kind] = set()

    def attend(self, q: Any, *arguments: Any, **options: Any) -> Any:
        """Appends and attends. Arguments as in `stand_in.Paged`."""
        # Triton launches on the current device, and a model's layers may lie on several.
        is_gpu = q.device.type == "cuda"
        with torch.cuda.device(q.device) if is_gpu else contextlib.nullcontext():
            return self._run(q, *arguments, **options)

    def _run(
        self,
        q: Any,
        k_cache: Any,
        v_cache: Any,
        k: Any,
        v: Any,
        *,
        cache_seqlens: Any,
        block_table: Any,
        scale: float,
        causal: bool,
        window_left: int,
        softcap: float,
    ) -> Any:
        batch, q_len, heads, dim = q.shape
        _, page, kv_heads, _ = k_cache.shape
        assert k_cache.is_contiguous() and v_cache.is_contiguous()  # noqa: PT018
        kind = _Kind(
            device=q.device,
            heads=heads,
            kv_heads=kv_heads,
            dim=dim,
            page=page,
            causal=causal,
            capped=softcap > 0.0,
            windowed=window_left >= 0,
        )
        new = 0 if k is None else int(k.shape[1])
        call = _Call(
            q=q.contiguous(),
            k_cache=k_cache,
            v_cache=v_cache,
            out=torch.empty_like(q),
            table=block_table,
            lengths=cache_seqlens,
            new=new,
            scale_log2=scale * _LOG2_E,
            softcap=float(softcap),
            window_left=window_left,
        )
        if kind not in self._compiled:
            self._compile(kind, call)
        if k is not None:
            self._append(kind, call, k.contiguous(), v.contiguous())
        rows = q_len * (heads // kv_heads)
        block_rows = tile_rows(rows, _padded(dim))
        tiles = triton.cdiv(rows, block_rows)
        splits = split_count(
            tiles * batch * kv_heads,
            block_table.shape[1] * page,
            self._facts(q.device)[0],
            decodes=tiles == 1,
            bytes_per_split=4 * batch * kv_heads * rows * (dim + 1),
        )
        partials = self._partials(call, splits, batch * kv_heads * rows)
        self._attend(kind, call, partials, block_rows=block_rows, splits=splits)
        if splits > 1:
            self._combine(kind, call, partials, splits=splits)
        return call.out

    def _compile(self, kind: _Kind, call: _Call) -> None:
        """Compiles every variant that calls of a kind can take."""
        partials = self._partials(call, 2, 1)  # nothing is written there
        keys = call.k_cache
        self._append(kind, call, keys, keys, launch=False)
        for block_rows in sorted({tile_rows(rows, _padded(kind.dim)) for rows in _TILES}):
            whole = (call.out, call.out)
            self._attend(kind, call, whole, block_rows=block_rows, splits=1, launch=False)
            self._attend(kind, call, partials, block_rows=block_rows, splits=2, launch=False)
        self._combine(kind, call, partials, splits=2, launch=False)
        self._compiled.add(kind)

    def _append(self, kind: _Kind, call: _Call, k: Any, v: Any, *, launch: bool = True) -> None:
        row = kind.kv_heads * kind.dim
        grid = (call.new, call.q.shape[0])
        _start(kernels.append, grid, launch)(
            k, v, call.k_cache, call.v_cache, call.table, call.lengths, call.new,
            call.table.stride(0), row, kind.page, min(1024, triton.next_power_of_2(row)),
        )  # fmt: skip

    def _attend(
        self,
        kind: _Kind,
        call: _Call,
        partials: tuple[Any, Any],
        *,
        block_rows: int,
        splits: int,
        launch: bool = True,
    ) -> None:
        batch, q_len = call.q.shape[:2]
        group, padded = kind.heads // kind.kv_heads, _padded(kind.dim)
        grid = (triton.cdiv(q_len * group, block_rows), batch * kind.kv_heads, splits)
        _start(kernels.attend, grid, launch)(
            call.q, call.k_cache, call.v_cache, call.table, call.lengths, call.out, *partials,
            call.new, q_len, call.table.stride(0), call.scale_log2, call.softcap,
            call.window_left, splits, kind.heads, kind.kv_heads,
            group, kind.dim, padded, kind.page, block_rows, 64 if padded <= _WIDE_HEAD else 32,
            kind.causal, kind.capped, kind.windowed, splits > 1,
            num_warps=warps(block_rows, padded, self._facts(kind.device)[1]), num_stages=2,
        )  # fmt: skip

    @staticmethod
    def _combine(
        kind: _Kind, call: _Call, partials: tuple[Any, Any], *, splits: int, launch: bool = True
    ) -> None:
        batch, q_len = call.q.shape[:2]
        group = kind.heads // kind.kv_heads
        _start(kernels.combine, (q_len * group, batch * kind.kv_heads), launch)(
            call.out, *partials, q_len, kind.heads, kind.kv_heads, batch * kind.kv_heads, splits,
            group, kind.dim, _padded(kind.dim), MOST_SPLITS, _COMBINED,
        )  # fmt: skip

    def _partials(self, call: _Call, splits: int, rows: int) -> tuple[Any, Any]:
        """Room for the partial results of split keys; it only grows."""
        if splits == 1:
            return call.out, call.out
        device, dim = call.q.device, call.q.shape[-1]
        need = splits * rows * (dim + 1)
        room = self._scratch.get(device)
        if room is None or room.numel() < need:
            room = self._scratch[device] = torch.empty(need, device=device, dtype=torch.float32)
        return room, room[splits * rows * dim :]

    def _facts(self, device: Any) -> tuple[int, tuple[int, int]]:
        """How many programs a device runs at once, and its compute capability."""
        if device.type != "cuda":
            return _DEFAULT_SM_COUNT, _DEFAULT_CAPABILITY
        if device not in self._devices:
            found = torch.cuda.get_device_properties(device)
            self._devices[device] = found.multi_processor_count, (found.major, found.minor)
        return self._devices[device]


def _start(kernel: Any, grid: tuple[int, ...], launch: bool) -> Any:  # noqa: FBT001
    """Launches a kernel, or only compiles and loads it."""
    if launch:
        return kernel[grid]

    def compile_only(*arguments: Any, **options: Any) -> None:
        made = kernel.warmup(*arguments, grid=grid, **options)
        getattr(made, "run", None)  # loads it onto the device

    return compile_only


def _padded(dim: int) -> int:
    return max(16, int(triton.next_power_of_2(dim)))

# ruff: noqa: ANN001, ANN202, N803, PLR0915 - a kernel is one function, typed by Triton
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
# pyright: reportIndexIssue=false, reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportUntypedFunctionDecorator=false, reportUnreachable=false
"""Paged attention for ExLlamaV2's cache, in Triton: append, attend (split over keys), combine.

Layout, per call: q (batch, queries, heads, dim); pages (pages, page, kv heads, dim); all half. The
query heads that share a kv head are packed into the rows of one tile, so that decoding a single
token still fills the matrix units and reads each key once (flash-decoding). With few tiles the
keys are split over several programs, whose partial results a second kernel combines.

Scores live in base 2: `scale_log2` is the scale times log2(e), as exp2 is the cheaper instruction.
"""

from __future__ import annotations

import contextlib
from typing import Any, Final

import torch
import triton
import triton.language as tl

_LOG2_E: Final = 1.4426950408889634
_DEFAULT_SM_COUNT: Final = 132
_MAX_SPLITS: Final = 32
_MIN_KEYS_PER_SPLIT: Final = 256
_WIDE_HEAD: Final = 128


@triton.jit
def _append(
    K, V, KC, VC, BT, SL, n_new, bt_stride, ROW: tl.constexpr, PAGE: tl.constexpr, BW: tl.constexpr
):
    """Copies new keys and values of one token into its page."""
    t = tl.program_id(0)
    b = tl.program_id(1)
    pos = tl.load(SL + b) + t
    page = tl.load(BT + b * bt_stride + pos // PAGE).to(tl.int64)
    dst = (page * PAGE + pos % PAGE) * ROW
    src = (b * n_new + t).to(tl.int64) * ROW
    for w in tl.static_range(0, ROW, BW):
        o = w + tl.arange(0, BW)
        m = o < ROW
        tl.store(KC + dst + o, tl.load(K + src + o, mask=m), mask=m)
        tl.store(VC + dst + o, tl.load(V + src + o, mask=m), mask=m)


@triton.jit
def _attend(
    Q,
    KC,
    VC,
    BT,
    SL,
    O,  # noqa: E741 - the output, as the papers call it
    PO,
    PL,
    n_new,
    q_len,
    bt_stride,
    scale_log2,
    softcap,
    win_l,
    splits,
    HQ,
    HK,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    PAGE: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    CAUSAL: tl.constexpr,
    SOFTCAP: tl.constexpr,
    WINDOW: tl.constexpr,
    SPLIT: tl.constexpr,
):
    """One tile of rows against one share of the keys, with a running softmax."""
    mb = tl.program_id(0)
    bh = tl.program_id(1)
    sp = tl.program_id(2)
    b = bh // HK
    hk = bh % HK
    kv_len = tl.load(SL + b) + n_new
    r = mb * BM + tl.arange(0, BM)  # packed (query position, head within the kv group)
    qp = r // GROUP
    hq = hk * GROUP + r % GROUP
    row_ok = qp < q_len
    d = tl.arange(0, DP)
    d_ok = d < D
    qoff = ((b * q_len + qp) * HQ + hq).to(tl.int64) * D
    q = tl.load(Q + qoff[:, None] + d[None, :], mask=row_ok[:, None] & d_ok[None, :], other=0.0)
    qabs = kv_len - q_len + qp  # the causal mask is aligned bottom-right
    hi = kv_len
    if CAUSAL:
        hi = tl.minimum(kv_len, kv_len - q_len + (mb * BM + BM - 1) // GROUP + 1)
    lo = 0
    if WINDOW:
        lo = tl.maximum(0, kv_len - q_len + (mb * BM) // GROUP - win_l) // BN * BN
    if SPLIT:
        per = tl.cdiv(tl.cdiv(hi - lo, splits), BN) * BN
        s0 = lo + sp * per
        s1 = tl.minimum(hi, s0 + per)
    else:
        s0 = lo
        s1 = hi
    m_i = tl.full((BM,), -float("inf"), tl.float32)
    l_i = tl.zeros((BM,), tl.float32)
    acc = tl.zeros((BM, DP), tl.float32)
    for n0 in range(s0, s1, BN):  # BN divides PAGE: one look-up of the page per tile
        n = n0 + tl.arange(0, BN)
        page = tl.load(BT + b * bt_stride + n0 // PAGE).to(tl.int64)
        off = ((page * PAGE + n % PAGE) * HK + hk) * D
        ok = n < s1
        k = tl.load(KC + off[None, :] + d[:, None], mask=ok[None, :] & d_ok[:, None], other=0.0)
        s = tl.dot(q, k)
        if SOFTCAP:
            x = s * (scale_log2 * 0.6931471805599453) / softcap
            s = (2.0 / (1.0 + tl.exp(-2.0 * x)) - 1.0) * softcap * 1.4426950408889634
        else:
            s = s * scale_log2
        seen = ok[None, :] & row_ok[:, None]
        if CAUSAL:
            seen = seen & (n[None, :] <= qabs[:, None])
        if WINDOW:
            seen = seen & (n[None, :] >= qabs[:, None] - win_l)
        s = tl.where(seen, s, -float("inf"))
        m_n = tl.maximum(m_i, tl.max(s, 1))
        m_s = tl.where(m_n == -float("inf"), 0.0, m_n)  # a row that has seen nothing yet
        p = tl.exp2(s - m_s[:, None])
        a = tl.exp2(m_i - m_s)
        l_i = l_i * a + tl.sum(p, 1)
        v = tl.load(VC + off[:, None] + d[None, :], mask=ok[:, None] & d_ok[None, :], other=0.0)
        acc = acc * a[:, None] + tl.dot(p.to(v.dtype), v)
        m_i = m_n
    safe = tl.where(l_i == 0.0, 1.0, l_i)
    if SPLIT:
        base = (sp * tl.num_programs(1) + bh).to(tl.int64) * (q_len * GROUP) + r
        tl.store(
            PO + base[:, None] * D + d[None, :],
            acc / safe[:, None],
            mask=row_ok[:, None] & d_ok[None, :],
        )
        tl.store(PL + base, tl.where(l_i == 0.0, -float("inf"), m_i + tl.log2(safe)), mask=row_ok)
    else:
        tl.store(
            O + qoff[:, None] + d[None, :],
            (acc / safe[:, None]).to(O.dtype.element_ty),
            mask=row_ok[:, None] & d_ok[None, :],
        )


@triton.jit
def _combine(
    O,  # noqa: E741
    PO,
    PL,
    q_len,
    HQ,
    HK,
    nbh,
    splits,
    GROUP: tl.constexpr,
    D: tl.constexpr,
    DP: tl.constexpr,
    S: tl.constexpr,
):
    """Weighs one row's partial results by their share of the softmax's sum."""
    r = tl.program_id(0)
    bh = tl.program_id(1)
    b = bh // HK
    hk = bh % HK
    s = tl.arange(0, S)
    d = tl.arange(0, DP)
    d_ok = d < D
    idx = (s * nbh + bh).to(tl.int64) * (q_len * GROUP) + r
    lse = tl.load(PL + idx, mask=s < splits, other=-float("inf"))
    mx = tl.max(lse, 0)
    mx = tl.where(mx == -float("inf"), 0.0, mx)
    w = tl.exp2(lse - mx)
    w = w / tl.maximum(tl.sum(w, 0), 1e-30)
    po = tl.load(
        PO + idx[:, None] * D + d[None, :], mask=(s < splits)[:, None] & d_ok[None, :], other=0.0
    )
    o = tl.sum(po * w[:, None], 0)
    off = ((b * q_len + r // GROUP) * HQ + hk * GROUP + r % GROUP).to(tl.int64) * D
    tl.store(O + off + d, o.to(O.dtype.element_ty), mask=d_ok)


def tile_rows(rows: int, padded_dim: int) -> int:
    """Rows of a tile: as few as decoding needs, as many as prefill can use."""
    if rows <= 16:  # noqa: PLR2004 - the least that tl.dot takes
        return 16
    if rows <= 32:  # noqa: PLR2004
        return 32
    return 64 if rows <= 64 or padded_dim > _WIDE_HEAD else 128  # noqa: PLR2004


def split_count(tiles: int, keys: int, sm_count: int) -> int:
    """Over how many programs the keys are split, so that few tiles still fill the device."""
    if tiles >= sm_count or keys <= 2 * _MIN_KEYS_PER_SPLIT:
        return 1
    wanted = max(1, 2 * sm_count // tiles)
    return min(_MAX_SPLITS, wanted, -(-keys // _MIN_KEYS_PER_SPLIT))


class PagedAttention:
    """Our kernel, with the scratch memory for split keys.

    One object serves every layer of a process: calls on a device run one after another on one
    stream, so the scratch memory can be shared.
    """

    def __init__(self) -> None:
        self._scratch: dict[Any, Any] = {}
        self._sm_counts: dict[Any, int] = {}

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
        group = heads // kv_heads
        assert k_cache.is_contiguous() and v_cache.is_contiguous()  # noqa: PT018
        q = q.contiguous()
        out = torch.empty_like(q)
        new = self._append(
            k, v, k_cache, v_cache, cache_seqlens=cache_seqlens, block_table=block_table
        )
        rows = q_len * group
        padded = max(16, triton.next_power_of_2(dim))
        block_rows = tile_rows(rows, padded)
        tiles = triton.cdiv(rows, block_rows)
        splits = split_count(
            tiles * batch * kv_heads, block_table.shape[1] * page, self._sm_count(q.device)
        )
        partial, partial_lse = self._partials(q.device, splits, batch * kv_heads * rows, dim, out)
        _attend[(tiles, batch * kv_heads, splits)](
            q, k_cache, v_cache, block_table, cache_seqlens, out, partial, partial_lse,
            new, q_len, block_table.stride(0), scale * _LOG2_E, float(softcap), window_left,
            splits, heads, kv_heads,
            group, dim, padded, page, block_rows, 64 if padded <= _WIDE_HEAD else 32,
            causal, softcap > 0.0, window_left >= 0, splits > 1,
            num_warps=4 if block_rows <= 64 else 8, num_stages=2,  # noqa: PLR2004
        )  # fmt: skip
        if splits > 1:
            _combine[(rows, batch * kv_heads)](
                out, partial, partial_lse, q_len, heads, kv_heads, batch * kv_heads, splits,
                group, dim, padded, triton.next_power_of_2(splits),
            )  # fmt: skip
        return out

    def _append(
        self, k: Any, v: Any, k_cache: Any, v_cache: Any, *, cache_seqlens: Any, block_table: Any
    ) -> int:
        if k is None:
            return 0
        batch, new, kv_heads, dim = k.shape
        row = kv_heads * dim
        _append[(new, batch)](
            k.contiguous(), v.contiguous(), k_cache, v_cache, block_table, cache_seqlens, new,
            block_table.stride(0), row, k_cache.shape[1], min(1024, triton.next_power_of_2(row)),
        )  # fmt: skip
        return int(new)

    def _partials(
        self, device: Any, splits: int, rows: int, dim: int, unused: Any
    ) -> tuple[Any, Any]:
        """Room for the partial results of split keys; it only grows."""
        if splits == 1:
            return unused, unused
        need = splits * rows * (dim + 1)
        room = self._scratch.get(device)
        if room is None or room.numel() < need:
            room = self._scratch[device] = torch.empty(need, device=device, dtype=torch.float32)
        return room, room[splits * rows * dim :]

    def _sm_count(self, device: Any) -> int:
        if device.type != "cuda":
            return _DEFAULT_SM_COUNT
        if device not in self._sm_counts:
            properties = torch.cuda.get_device_properties(device)
            self._sm_counts[device] = properties.multi_processor_count
        return self._sm_counts[device]

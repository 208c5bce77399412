# ruff: noqa: ANN001, ANN201, N803, PLR0915 - a kernel is one function, typed by Triton
# mypy: disable-error-code="no-untyped-def, untyped-decorator, no-untyped-call"
# pyright: reportIndexIssue=false, reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportUntypedFunctionDecorator=false, reportUnreachable=false
"""The Triton kernels of paged attention: append, attend (split over keys), combine.

Layout, per call: q (batch, queries, heads, dim); pages (pages, page, kv heads, dim); all half. The
query heads that share a kv head are packed into the rows of one tile, so that decoding a single
token still fills the matrix units and reads each key once (flash-decoding). With few tiles the
keys are split over several programs, whose partial results a second kernel combines.

Scores live in base 2: `scale_log2` is the scale times log2(e), as exp2 is the cheaper instruction.
Numbers that vary from call to call are not specialised: Triton would compile again for 1 and for
every multiple of 16, in the middle of serving.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["n_new", "bt_stride"])
def append(
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


@triton.jit(do_not_specialize=["n_new", "q_len", "bt_stride", "win_l", "splits"])
def attend(
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


@triton.jit(do_not_specialize=["q_len", "nbh", "splits"])
def combine(
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
    MOST: tl.constexpr,
    STEP: tl.constexpr,
):
    """Weighs one row's partial results by their share of the softmax's sum."""
    r = tl.program_id(0)
    bh = tl.program_id(1)
    b = bh // HK
    hk = bh % HK
    d = tl.arange(0, DP)
    d_ok = d < D
    rows = q_len * GROUP
    every = tl.arange(0, MOST)
    lse = tl.load(
        PL + (every * nbh + bh).to(tl.int64) * rows + r, mask=every < splits, other=-float("inf")
    )
    mx = tl.max(lse, 0)
    mx = tl.where(mx == -float("inf"), 0.0, mx)
    total = tl.maximum(tl.sum(tl.exp2(lse - mx), 0), 1e-30)
    acc = tl.zeros((DP,), tl.float32)
    for s0 in range(0, splits, STEP):
        s = s0 + tl.arange(0, STEP)
        ok = s < splits
        idx = (s * nbh + bh).to(tl.int64) * rows + r
        w = tl.exp2(tl.load(PL + idx, mask=ok, other=-float("inf")) - mx) / total
        po = tl.load(
            PO + idx[:, None] * D + d[None, :], mask=ok[:, None] & d_ok[None, :], other=0.0
        )
        acc += tl.sum(po * w[:, None], 0)
    off = ((b * q_len + r // GROUP) * HQ + hk * GROUP + r % GROUP).to(tl.int64) * D
    tl.store(O + off + d, acc.to(O.dtype.element_ty), mask=d_ok)

"""The attention backends against float64, and the stand-in that hides them."""

import importlib
import math
import sys

import pytest
import torch

from services.neuron.engines.exllamav2.attention import dense, paged_torch, stand_in
from services.neuron.engines.exllamav2.attention.choice import Backend
from services.neuron.engines.exllamav2.attention.paged_triton import PagedAttention
from tests.engines.exllamav2.attention_cases import CASES, Case, relative_error

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# fp16 inputs and outputs: half a unit in the last place is 2^-11.
TOLERANCE = 1e-3


@pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case)[5:-1])
def test_the_triton_kernel_gives_what_the_definition_gives(case: Case) -> None:
    assert relative_error(case, PagedAttention().attend, DEVICE) < TOLERANCE


@pytest.mark.parametrize("case", CASES, ids=lambda case: repr(case)[5:-1])
def test_the_fallback_gives_what_the_definition_gives(case: Case) -> None:
    assert relative_error(case, paged_torch.attend, DEVICE) < TOLERANCE


def test_the_kernels_scratch_memory_is_shared_by_layers() -> None:
    kernel = PagedAttention()

    errors = [relative_error(CASES[n], kernel.attend, DEVICE, n) for n in (1, 0, 1)]

    assert max(errors) < TOLERANCE


@pytest.mark.parametrize(("window", "softcap"), [(-1, 0.0), (3, 0.0), (-1, 20.0), (3, 20.0)])
@pytest.mark.parametrize("causal", [True, False])
def test_dense_attention_is_aligned_to_the_last_key(
    window: int, softcap: float, causal: bool
) -> None:
    random = torch.Generator().manual_seed(1)
    q = torch.randn(2, 4, 4, 16, generator=random)
    k, v = (torch.randn(2, 9, 2, 16, generator=random) for _ in range(2))

    out = dense.attention(q, k, v, scale=None, causal=causal, window_left=window, softcap=softcap)

    keys, values = (x.double().repeat_interleave(2, 2) for x in (k, v))
    scores = torch.einsum("bqhd,bkhd->bhqk", q.double(), keys) / 4
    if softcap:
        scores = torch.tanh(scores / softcap) * softcap
    for query in range(4):
        for key in range(9):
            own = query + 5
            if (causal and key > own) or (window >= 0 and key < own - window):
                scores[:, :, query, key] = -math.inf
    expected = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), values)
    assert torch.allclose(out.double(), expected, atol=1e-5)


def test_the_stand_in_is_what_the_library_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flash_attn", None)
    monkeypatch.setitem(sys.modules, "flash_attn_2_cuda", None)

    assert stand_in.install("torch") is Backend.TORCH

    assert importlib.import_module("flash_attn").__version__ == "2.8.3"
    assert callable(importlib.import_module("flash_attn_2_cuda").fwd_kvcache)
    from exllamav2 import attn

    assert attn.has_flash_attn_with_paged
    assert attn.has_flash_attn_with_window
    assert attn.has_flash_attn_with_softcap


def test_the_stand_in_takes_a_contiguous_cache() -> None:
    outer, compiled = stand_in.modules(paged_torch.attend)
    random = torch.Generator().manual_seed(2)
    q = torch.randn(2, 1, 2, 16, generator=random)
    k_cache, v_cache = (torch.randn(2, 64, 2, 16, generator=random) for _ in range(2))

    out = outer.flash_attn_with_kvcache(q, k_cache, v_cache, cache_seqlens=5, causal=True)
    from_c, _ = compiled.fwd_kvcache(
        q, k_cache, v_cache, None, None, torch.tensor([5, 5]), None, None, None, None,
        torch.tensor([[0], [1]]), None, None, 0.25, True, 20_000_000, 0, 0.0, True, 0,
    )  # fmt: skip

    expected = dense.attention(q, k_cache[:, :5], v_cache[:, :5], scale=0.25, causal=True)
    assert torch.allclose(out, expected, atol=1e-6)
    assert torch.allclose(from_c, expected, atol=1e-6)


def test_the_stand_in_attends_within_each_sequence() -> None:
    q = torch.randn(7, 2, 16)
    bounds = torch.tensor([0, 3, 7])

    out = stand_in.flash_attn_varlen_func(q, q, q, bounds, bounds, 4, 4)

    for begin, end in ((0, 3), (3, 7)):
        alone = stand_in.flash_attn_func(*[q[None, begin:end]] * 3)[0]
        assert torch.allclose(out[begin:end], alone, atol=1e-6)


def test_the_stand_in_refuses_what_it_does_not_do() -> None:
    q = torch.randn(1, 1, 1, 16)

    with pytest.raises(TypeError, match="alibi_slopes"):
        stand_in.flash_attn_func(q, q, q, alibi_slopes=[1.0])

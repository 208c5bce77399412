"""The attention backends against float64, and the stand-in that hides them."""

import importlib
import json
import math
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest
import torch

from services.neuron.engines.exllamav2.attention import dense, paged_torch, paged_triton, stand_in
from services.neuron.engines.exllamav2.attention.choice import Backend
from services.neuron.engines.exllamav2.attention.paged_triton import (
    MOST_KEYS,
    MOST_PARTIAL_BYTES,
    MOST_SPLITS,
    PagedAttention,
    split_count,
)
from services.neuron.engines.exllamav2.files import weights
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


def compiled(what: str, tmp_path: pathlib.Path) -> Any:
    """What `kernel_compiles` says, in a process outside Triton's interpreter."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.engines.exllamav2.kernel_compiles", what],
        env={**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)},
        cwd=pathlib.Path(__file__).parents[3],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_nothing_is_compiled_behind_the_first_call_of_a_model(tmp_path: pathlib.Path) -> None:
    variants = compiled("variants", tmp_path)

    assert variants["first"] == variants["later"] == {"append": 1, "attend": 8, "combine": 1}


def test_no_tile_spills_its_registers(tmp_path: pathlib.Path) -> None:
    assert compiled("spills", tmp_path) == {"64": 0, "128": 0, "256": 0}


@pytest.mark.parametrize("tiles", [2, 64, 512])
@pytest.mark.parametrize("keys", [1024, 32_768, 131_072])
def test_no_program_walks_through_more_than_2048_keys_while_decoding(tiles: int, keys: int) -> None:
    splits = split_count(tiles, keys, 132, decodes=True)

    assert keys / splits <= MOST_KEYS
    assert splits <= MOST_SPLITS


def test_the_scratch_memory_of_the_kernels_is_counted_in_a_load() -> None:
    assert weights.ATTENTION_BYTES == MOST_PARTIAL_BYTES


def test_few_tiles_fill_the_device_and_scratch_memory_has_an_end() -> None:
    assert split_count(2, 131_072, 132, decodes=True) == MOST_SPLITS
    assert split_count(512, 131_072, 132) == 1  # prefill: all programs have the same to do
    assert split_count(1, 512, 132) == 1
    large = MOST_PARTIAL_BYTES // 10
    assert split_count(2, 131_072, 132, decodes=True, bytes_per_split=large) == 10
    assert split_count(2, 131_072, 132, bytes_per_split=2 * MOST_PARTIAL_BYTES) == 1


def test_partial_results_of_many_splits_are_combined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paged_triton, "MOST_KEYS", 16)  # 32 splits: more than are combined at once
    case = Case(1, 2, 1, 64, (5, 300))

    assert relative_error(case, PagedAttention().attend, DEVICE) < TOLERANCE


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

from __future__ import annotations

from typing import Any

import pytest

torch: Any = pytest.importorskip("torch")

from services.neuron.engines.exllamav2.parallel import slices  # noqa: E402
from services.neuron.engines.exllamav2.parallel.rank import Rank  # noqa: E402
from services.neuron.engines.exllamav2.parallel.slices import IndivisibleError  # noqa: E402

RANKS = [Rank(0, 2), Rank(1, 2)]


def gptq(inputs: int, outputs: int, group: int, **more: Any) -> dict[str, Any]:
    groups = inputs // group
    return {
        "qweight": torch.arange(inputs // 8 * outputs).view(inputs // 8, outputs),
        "scales": torch.arange(groups * outputs).view(groups, outputs).half(),
        "qzeros": torch.arange(groups * outputs // 8).view(groups, outputs // 8),
        **more,
    }


def test_columns_and_rows_multiply_to_the_whole():
    x = torch.randn(3, 4)
    up, down = torch.randn(6, 4), torch.randn(4, 6)

    parts = [x @ slices.by_columns(up, rank).T @ slices.by_rows(down, rank).T for rank in RANKS]

    torch.testing.assert_close(sum(parts), x @ up.T @ down.T)


def test_a_bias_behind_a_sum_is_added_once():
    weight, bias = torch.randn(4, 6), torch.randn(4)

    added = [slices.by_rows((weight, bias), rank)[1] for rank in RANKS]
    split = [slices.by_columns((weight, bias), rank)[1] for rank in RANKS]

    assert torch.equal(sum(added), bias)
    assert torch.equal(torch.cat(split), bias)


def test_quantised_columns_take_their_scales_and_zeros():
    whole = gptq(64, 32, 32)

    part = slices.by_columns(whole, RANKS[1])

    assert torch.equal(part["qweight"], whole["qweight"][:, 16:])
    assert torch.equal(part["scales"], whole["scales"][:, 16:])
    assert torch.equal(part["qzeros"], whole["qzeros"][:, 2:])


def test_quantised_rows_take_their_groups_and_need_no_map_of_them():
    whole = gptq(128, 32, 32, g_idx=torch.arange(128) // 32)

    part = slices.by_rows(whole, RANKS[1])

    assert torch.equal(part["qweight"], whole["qweight"][8:])
    assert torch.equal(part["scales"], whole["scales"][2:])
    assert torch.equal(part["qzeros"], whole["qzeros"][2:])
    assert "g_idx" not in part


def test_one_scale_for_a_whole_column_is_everybodys():
    whole = gptq(64, 32, 64)

    part = slices.by_rows(whole, RANKS[1])

    assert torch.equal(part["scales"], whole["scales"])
    assert part["qweight"].shape == (4, 32)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (gptq(96, 32, 32), "3 groups of 32 quantised inputs"),
        (gptq(128, 32, 32, g_idx=torch.randperm(128) // 32), "desc_act"),
    ],
)
def test_groups_that_are_cut_or_scattered_are_refused(found, said):
    with pytest.raises(IndivisibleError, match=said):
        slices.by_rows(found, RANKS[0])


def test_the_last_rows_of_a_vocabulary_are_filled_with_zeros():
    embedding = torch.randn(70, 4)

    parts = [slices.of_vocabulary(embedding, rank, 70) for rank in RANKS]

    assert [part.shape[0] for part in parts] == [64, 64]
    assert torch.equal(torch.cat(parts)[:70], embedding)
    assert not parts[1][6:].any()

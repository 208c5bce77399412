from __future__ import annotations

from services.neuron.engines.exllamav2.files.geometry import Geometry
from services.neuron.engines.exllamav2.files.weights import TensorSizes
from services.neuron.engines.exllamav2.parallel.rank import (
    Rank,
    share_of_geometry,
    share_of_weights,
    vocabulary_rows,
)

SMOLLM2 = Geometry(
    layers=30,
    hidden=576,
    intermediate=1536,
    heads=9,
    kv_heads=3,
    head_dim=64,
    vocabulary=49152,
    context=8192,
)


def test_shares_are_equal_and_cover_everything():
    assert [Rank(n, 3).share(9) for n in range(3)] == [slice(0, 3), slice(3, 6), slice(6, 9)]


def test_a_vocabulary_is_divided_in_rows_that_the_head_can_have():
    assert vocabulary_rows(49152, 3) == 16384
    assert vocabulary_rows(128257, 2) == 64160
    assert Rank(1, 2).vocabulary_share(300) == slice(160, 320)


def test_a_rank_has_its_share_of_the_heads_and_of_the_inner_width():
    share = share_of_geometry(SMOLLM2, 3)

    assert (share.heads, share.kv_heads, share.intermediate) == (3, 1, 512)
    assert (share.hidden, share.head_dim, share.layers) == (576, 64, 30)
    assert share.vocabulary == 16384


def test_norms_are_whole_on_every_rank():
    weights = TensorSizes(
        {"model.norm.weight": 10, "model.layers.0.mlp.up_proj.qweight": 10, "lm_head.weight": 30}
    )

    assert dict(share_of_weights(weights, 3).tensors) == {
        "model.norm.weight": 10,
        "model.layers.0.mlp.up_proj.qweight": 4,
        "lm_head.weight": 10,
    }

from __future__ import annotations

import pytest

from cortex.v1 import model_pb2
from services.registry.catalogue.profile import LoadTerms, Profile
from services.registry.placement.orders import LoadOrder
from services.registry.rpc.encode import load_spec


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("", model_pb2.PARALLEL_UNSPECIFIED),
        ("auto", model_pb2.PARALLEL_AUTO),
        ("layers", model_pb2.PARALLEL_LAYERS),
        ("tensor", model_pb2.PARALLEL_TENSOR),
    ],
)
def test_a_neuron_is_told_how_a_model_is_spread(said, told):
    order = LoadOrder(
        order_id=1,
        neuron="n",
        incarnation_id="i",
        address="a:1",
        profile=Profile("m", LoadTerms(parallel=said)),
        device_ids=("GPU-0", "GPU-1"),
        principal="ada",
        needs={},
        detach=False,
    )

    assert load_spec(order).parallel == told

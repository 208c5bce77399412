"""What neurons say, as values that the registry can compute with."""

from __future__ import annotations

import pytest

from cortex.v1 import model_pb2, neuron_service_pb2
from services.registry.catalogue.profile import Profile
from services.registry.fleet.footprints import Footprints
from services.registry.fleet.records import GpuLayers
from services.registry.rpc import decode


def told(**layers: int) -> neuron_service_pb2.NeuronReport:
    stored = model_pb2.StoredModel(
        model="m",
        format="gguf",
        bytes=1000,
        max_context_tokens=100,
        default_cache_tokens=100,
        cache_bytes_per_token=8,
        gpu_layers=model_pb2.GpuLayers(**layers),
    )
    return neuron_service_pb2.NeuronReport(stored_models=[stored])


def test_how_a_model_is_divided_is_taken_over():
    (stored,) = decode.report(told(most=2, all=3, bytes=600, host_bytes=400)).stored

    assert stored.gpu_layers == GpuLayers(2, 3, 600, 400)


@pytest.mark.parametrize("layers", [{}, {"most": 1}, {"most": 4, "all": 3}])
def test_layers_that_cannot_be_are_as_if_nothing_was_said(layers):
    (stored,) = decode.report(told(**layers)).stored

    assert stored.gpu_layers is None
    found = Footprints().footprint(Profile("m", revision=1), stored)
    assert found.gpu_bytes >= 0 <= found.host_bytes

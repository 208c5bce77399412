from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1 import operator_service_pb2 as op
from services.backplane.rpc.protobuf_json import json_fields


def test_an_empty_fleet_has_its_lists_and_numbers():
    fields = json_fields(op.GetFleetResponse(registry=op.RegistryFacts(role="leader")))

    assert ([], [], 0) == (fields["neurons"], fields["pending"], fields["revision"])
    assert 0 == fields["registry"]["loads_total"]


def test_long_numbers_are_numbers_at_any_depth():
    fleet = op.GetFleetResponse(revision=1 << 40)
    report = neuron.NeuronReport(devices=[model.Device(memory_total_bytes=24 << 30)])
    fleet.neurons.add(report=report).identity.labels["pool"] = "7"

    fields = json_fields(fleet)

    assert 1 << 40 == fields["revision"]
    assert 24 << 30 == fields["neurons"][0]["report"]["devices"][0]["memory_total_bytes"]
    assert {"pool": "7"} == fields["neurons"][0]["identity"]["labels"]

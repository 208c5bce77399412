import pytest

from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1 import operator_service_pb2 as op
from services.backplane.rpc.protobuf_json import json_fields, not_an_object


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


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"neurons": [{"report": {"devices": [{}]}}], "registry": {}}, None),
        ({"registry": None}, None),  # as if left out
        ({"registry": ""}, "registry"),
        ({"registry": []}, "registry"),
        ({"neurons": [{}, ""]}, "neurons"),
        ({"neurons": [{"report": {"devices": [[]]}}]}, "devices"),
        ({"neurons": [{"lastReportAt": "2030-01-01T00:00:00Z"}]}, None),  # times are texts
        ({"unknown": ""}, None),
    ],
)
def test_what_stands_for_a_message_is_an_object_at_any_depth(given, field):
    assert not_an_object(given, op.GetFleetResponse()) == field

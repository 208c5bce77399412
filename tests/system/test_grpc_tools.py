"""A reflection client drives a neuron as grpcurl does: it knows nothing but the address."""

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import operator_service_pb2_grpc as op_grpc
from tests.system.conftest import BRAVO
from tests.system.reflection import Curl


@pytest.fixture
def neuron_address(scripted_fleet):
    with grpc.insecure_channel(scripted_fleet.registry) as channel:
        fleet = op_grpc.OperatorServiceStub(channel).GetFleet(op.GetFleetRequest(), timeout=60)
    return fleet.neurons[0].identity.address


@pytest.fixture
def curl(neuron_address):
    curl = Curl(neuron_address)
    yield curl
    curl.close()


def health(curl, name):
    stub = health_pb2_grpc.HealthStub(curl.channel)
    return stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=60).status


def test_services_are_listed(curl, scripted_fleet):
    assert {"cortex.v1.NeuronService", "grpc.health.v1.Health"} <= curl.services()
    registry = Curl(scripted_fleet.registry)
    assert {"cortex.v1.RegistryService", "cortex.v1.OperatorService"} <= registry.services()
    registry.close()


def test_load_generate_health_and_unload(curl, scripted_fleet):
    path = scripted_fleet.data_dir / "models" / "bravo.gguf"
    spec = {"model": "by-hand", "source": f"path:{path}"}

    *_, ready = curl.call("cortex.v1.NeuronService/Load", spec=spec)
    assert "INSTANCE_STATE_READY" == ready["ready"]["state"]
    assert health_pb2.HealthCheckResponse.SERVING == health(curl, "model/by-hand")

    chat = {"messages": [{"role": "ROLE_USER", "parts": [{"text": "hi"}]}]}
    events = curl.call("cortex.v1.NeuronService/Generate", model="by-hand", chat=chat)
    text = "".join(event["text"].get("text", "") for event in events if "text" in event)
    assert "".join(BRAVO) == text
    assert "FINISH_REASON_END_OF_TURN" == events[-1]["finished"]["reason"]

    *_, gone = curl.call("cortex.v1.NeuronService/Unload", model="by-hand")
    assert "unloaded" in gone
    with pytest.raises(grpc.RpcError) as caught:
        health(curl, "model/by-hand")
    assert grpc.StatusCode.NOT_FOUND is caught.value.code()


def test_an_error_has_its_reason(curl):
    with pytest.raises(grpc.RpcError) as caught:
        curl.call("cortex.v1.NeuronService/Generate", model="nobody", text="x")

    assert caught.value.code() in {grpc.StatusCode.NOT_FOUND, grpc.StatusCode.FAILED_PRECONDITION}
    details = dict(caught.value.trailing_metadata())
    assert b"cortex" in details["grpc-status-details-bin"]

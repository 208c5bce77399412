"""Who may read, fetch and remove the files on a neuron's disk."""

import pytest

from cortex.v1 import storage_service_pb2 as storage
from cortex.v1 import storage_service_pb2_grpc as storage_grpc
from services.backplane.errors import FleetError
from services.backplane.rpc.calls import streaming, unary
from services.backplane.rpc.channels import open_channel
from services.backplane.security.roles import Role


async def answers_of(call):
    async with streaming(call) as answers:
        return [answer async for answer in answers]


async def test_a_neighbour_reads_files_and_gateway_and_registry_do_not(pki, served):
    read = storage.ReadFileRequest(origin="hf:a/b@main", path="m.gguf")
    for role in (Role.NEURON, Role.GATEWAY, Role.REGISTRY):
        credentials = pki.credentials(role, neuron="x" if role is Role.NEURON else "")
        async with open_channel(served, credentials, role=Role.NEURON) as channel:
            call = storage_grpc.StorageServiceStub(channel).ReadFile(read, timeout=60)
            if role is Role.NEURON:
                assert [answer.data for answer in await answers_of(call)] == [b"x"]
                continue
            with pytest.raises(FleetError, match="ReadFile is for neuron or operator"):
                await answers_of(call)


@pytest.mark.parametrize("role", [Role.NEURON, Role.GATEWAY])
async def test_neurons_fetch_and_remove_for_registry_and_operator_alone(pki, served, role):
    credentials = pki.credentials(role, neuron="x" if role is Role.NEURON else "")
    async with open_channel(served, credentials, role=Role.NEURON) as channel:
        stub = storage_grpc.StorageServiceStub(channel)
        with pytest.raises(FleetError, match="RemoveStored is for operator or registry"):
            await unary(stub.RemoveStored(storage.RemoveStoredRequest(model="m"), timeout=60))
    async with open_channel(served, credentials) as channel:
        fleet = storage_grpc.FleetStorageServiceStub(channel)
        with pytest.raises(FleetError, match="PullModel is for operator;"):
            await answers_of(fleet.PullModel(storage.PullModelRequest(), timeout=60))

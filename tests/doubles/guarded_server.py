"""A server with the access rules of registry and neuron, and an authority for who calls it."""

from __future__ import annotations

import asyncio
import contextlib

from prometheus_client import CollectorRegistry

from cortex.v1 import key_service_pb2 as keys
from cortex.v1 import key_service_pb2_grpc as keys_grpc
from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1 import neuron_service_pb2_grpc as neuron_grpc
from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import operator_service_pb2_grpc as op_grpc
from cortex.v1 import storage_service_pb2 as storage
from cortex.v1 import storage_service_pb2_grpc as storage_grpc
from services.backplane.address import Address
from services.backplane.metrics import RpcMetrics
from services.backplane.rpc.server import Server
from services.backplane.security.access import Access
from services.backplane.security.authority import create, issue, show
from services.backplane.security.credentials import FleetCredentials
from services.backplane.security.settings import FleetSettings
from services.neuron.access import METHODS as NEURON_METHODS
from services.registry.api.access import METHODS as REGISTRY_METHODS

METHODS = {**NEURON_METHODS, **REGISTRY_METHODS}


class Pki:
    """An authority, and credentials of each kind."""

    def __init__(self, folder):
        self.folder = folder
        create(folder)
        (folder / "revoked").touch()

    def serial(self, name):
        return show(self.folder / f"{name}.pem").serial

    def credentials(self, *roles, neuron="", days=2, ca=None, name=""):
        out = self.folder / (name or "+".join(role.value for role in roles) + neuron)
        issued = issue(self.folder, roles, neuron=neuron, out=out, days=days)
        return FleetCredentials(
            FleetSettings(
                ca=str(ca or self.folder / "ca.pem"),
                certificate=str(issued.certificate),
                key=str(issued.key),
                revoked=str(self.folder / "revoked"),
            )
        )


class Neuron(neuron_grpc.NeuronServiceServicer):
    """Answers at once, or for as long as it is asked."""

    async def GetStatus(self, request, context):
        return neuron.GetStatusResponse()

    async def WatchStatus(self, request, context):
        while True:
            yield neuron.WatchStatusResponse()
            await asyncio.sleep(0.05)

    async def Load(self, request, context):
        yield neuron.LoadResponse()

    async def Session(self, request_iterator, context):
        async for _ in request_iterator:
            yield neuron.SessionResponse()


class Storage(storage_grpc.StorageServiceServicer):
    """Has one byte."""

    async def ReadFile(self, request, context):
        yield storage.ReadFileResponse(data=b"x")


class Operator(op_grpc.OperatorServiceServicer):
    """Answers at once."""

    async def GetFleet(self, request, context):
        return op.GetFleetResponse(revision=7)


class Keys(keys_grpc.KeyServiceServicer):
    """Answers at once."""

    async def CreateKey(self, request, context):
        return keys.CreateKeyResponse()

    async def ReportKeyUse(self, request, context):
        return keys.ReportKeyUseResponse()


@contextlib.asynccontextmanager
async def serving(credentials):
    server = Server(
        service_names=[],
        metrics=RpcMetrics(CollectorRegistry(), "test"),
        access=Access(credentials, METHODS),
    )
    server.add(neuron_grpc.add_NeuronServiceServicer_to_server, Neuron())
    server.add(op_grpc.add_OperatorServiceServicer_to_server, Operator())
    server.add(storage_grpc.add_StorageServiceServicer_to_server, Storage())
    server.add(
        storage_grpc.add_FleetStorageServiceServicer_to_server,
        storage_grpc.FleetStorageServiceServicer(),
    )
    server.add(keys_grpc.add_KeyServiceServicer_to_server, Keys())
    address = await server.start(Address("127.0.0.1", 0))
    try:
        yield str(address)
    finally:
        await server.stop(0)

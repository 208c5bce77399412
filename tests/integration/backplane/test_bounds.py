"""A port for strangers: those who come and say nothing keep nobody out."""

import asyncio
import socket

import grpc
import pytest
from prometheus_client import CollectorRegistry

from cortex.v1 import join_service_pb2 as pb
from cortex.v1 import join_service_pb2_grpc as join_grpc
from services.backplane.address import Address
from services.backplane.metrics import RpcMetrics
from services.backplane.rpc.server import Bounds, Server
from services.backplane.security.access import StrangersAccess
from services.backplane.security.authority import create, issue
from services.backplane.security.credentials import FleetCredentials
from services.backplane.security.roles import Role
from services.backplane.security.settings import FleetSettings

GET = "/cortex.v1.JoinService/GetAuthority"
BOUNDS = Bounds(
    calls=4, calls_each=2, message_bytes=1000, patience_seconds=0.5, connection_seconds=60.0
)


class Servicer(join_grpc.JoinServiceServicer):
    async def GetAuthority(self, request, context):
        return pb.GetAuthorityResponse(certificate=b"here")


@pytest.fixture
async def port(tmp_path):
    create(tmp_path)
    issue(tmp_path, [Role.REGISTRY], out=tmp_path / "own", days=30)
    settings = FleetSettings(
        ca=str(tmp_path / "ca.pem"),
        certificate=str(tmp_path / "own.pem"),
        key=str(tmp_path / "own.key"),
    )
    server = Server(
        service_names=["cortex.v1.JoinService"],
        metrics=RpcMetrics(CollectorRegistry(), "test"),
        access=StrangersAccess(FleetCredentials(settings), [GET]),
        bounds=BOUNDS,
    )
    server.add(join_grpc.add_JoinServiceServicer_to_server, Servicer())
    yield await server.start(Address("127.0.0.1", 0))
    await server.stop(0.0)


def channel(port, tmp_path):
    override = ("grpc.ssl_target_name_override", "registry.cortex.internal")
    pool = ("grpc.use_local_subchannel_pool", 1)  # a connection of its own
    root = grpc.ssl_channel_credentials((tmp_path / "ca.pem").read_bytes())
    return grpc.aio.secure_channel(str(port), root, options=[override, pool])


async def silence():
    await asyncio.Event().wait()
    yield b""


@pytest.mark.parametrize("method", [GET, "/grpc.health.v1.Health/Check"])
async def test_calls_without_a_request_are_ended(port, tmp_path, method):
    async with channel(port, tmp_path) as one, channel(port, tmp_path) as two:
        calls = [each.stream_unary(method)(silence(), timeout=30) for each in (one, one, two, two)]

        codes = await asyncio.gather(*(each.code() for each in calls))

        assert set(codes) <= {
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.PERMISSION_DENIED,
        }
        answer = await join_grpc.JoinServiceStub(two).GetAuthority(
            pb.GetAuthorityRequest(), timeout=30
        )
        assert answer.certificate == b"here"


async def test_a_connection_without_a_handshake_is_ended(port):
    loop = asyncio.get_running_loop()
    with socket.create_connection((port.host, port.port)) as silent:
        silent.setblocking(False)
        async with asyncio.timeout(60):
            while await loop.sock_recv(silent, 1000):
                pass

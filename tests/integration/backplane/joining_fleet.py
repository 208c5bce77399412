"""A registry that gives certificates, and whoever asks it for one."""

from __future__ import annotations

import contextlib
import pathlib
import socket

import grpc
import msgspec

from cortex.v1 import join_service_pb2_grpc as join_grpc
from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import operator_service_pb2_grpc as op_grpc
from services.backplane.address import Address
from services.backplane.rpc.calls import unary
from services.backplane.rpc.channels import open_channel
from services.backplane.security.authority import create, issue
from services.backplane.security.credentials import FleetCredentials
from services.backplane.security.join_token import JoinToken
from services.backplane.security.roles import Role
from services.backplane.security.settings import FleetSettings
from services.backplane.settings import load
from services.registry.wire import running

ALL = [Role.REGISTRY, Role.OPERATOR, Role.GATEWAY]


class Fleet:
    """A registry that gives certificates, and an operator."""

    def __init__(self, folder: pathlib.Path, *, asks_approval: bool = False) -> None:
        self.folder = folder
        self.asks_approval = asks_approval
        self.address = ""
        self.door = Address("127.0.0.1", 0)
        create(folder / "pki")
        issue(folder / "pki", ALL, out=folder / "pki" / "own", days=2)
        (folder / "pki" / "revoked").touch()

    @property
    def environment(self) -> dict[str, str]:
        pki = self.folder / "pki"
        return {
            "CORTEX_FLEET__CA": str(pki / "ca.pem"),
            "CORTEX_FLEET__CERTIFICATE": str(pki / "own.pem"),
            "CORTEX_FLEET__KEY": str(pki / "own.key"),
            "CORTEX_FLEET__REVOKED": str(pki / "revoked"),
            "CORTEX_REGISTRY__LISTEN": "127.0.0.1:0",
            "CORTEX_REGISTRY__METRICS_LISTEN": "",
            "CORTEX_REGISTRY__STORE": f"sqlite:{self.folder / 'registry.sqlite'}",
            "CORTEX_REGISTRY__AUTHORITY": str(pki),
            "CORTEX_REGISTRY__JOIN_LISTEN": str(self.door),
            "CORTEX_REGISTRY__CERTIFICATE_SECONDS": "120",
            "CORTEX_REGISTRY__JOIN_APPROVAL": str(self.asks_approval).lower(),
        }

    @property
    def credentials(self) -> FleetCredentials:
        pki = self.folder / "pki"
        paths = {"ca": "ca.pem", "certificate": "own.pem", "key": "own.key"}
        return FleetCredentials(
            msgspec.convert({key: str(pki / to) for key, to in paths.items()}, FleetSettings)
        )

    def of(self, joined) -> FleetCredentials:
        """The credentials of a host that has joined."""
        folder = self.folder / "joined" / joined.neuron
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in (("ca", joined.ca), ("c", joined.certificate), ("k", joined.key)):
            (folder / name).write_bytes(data)
        return FleetCredentials(
            FleetSettings(
                ca=str(folder / "ca"),
                certificate=str(folder / "c"),
                key=str(folder / "k"),
                renew=True,
            )
        )

    @contextlib.asynccontextmanager
    async def serving(self):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.door = Address("127.0.0.1", probe.getsockname()[1])
        async with running(load(pathlib.Path("/dev/null"), self.environment)) as address:
            self.address = str(address)
            yield self

    async def operate(self, method: str, request):
        async with open_channel(self.address, self.credentials) as channel:
            stub = op_grpc.OperatorServiceStub(channel)
            return await unary(getattr(stub, method)(request, timeout=60))

    async def token(self, neuron: str, *, seconds: float = 60.0) -> JoinToken:
        request = op.CreateJoinTokenRequest(neuron=neuron)
        request.lifetime.FromMilliseconds(round(seconds * 1000))
        return JoinToken.parse((await self.operate("CreateJoinToken", request)).token)


@contextlib.asynccontextmanager
async def door(fleet, *, raw=False):
    """The port for joining, as one who knows the authority reaches it."""
    root = (fleet.folder / "pki" / "ca.pem").read_bytes()
    override = ("grpc.ssl_target_name_override", "registry.cortex.internal")
    async with grpc.aio.secure_channel(
        str(fleet.door), grpc.ssl_channel_credentials(root), options=[override]
    ) as channel:
        yield channel if raw else join_grpc.JoinServiceStub(channel)

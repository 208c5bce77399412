"""Operations over HTTP and gRPC are told: who, from where, what, and what came of it."""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import pytest

from cortex.v1 import key_service_pb2 as pb
from cortex.v1 import key_service_pb2_grpc as key_grpc
from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import operator_service_pb2_grpc as op_grpc
from services.backplane.rpc.channels import open_channel
from services.backplane.security.audit import AuditSettings
from services.backplane.security.authority import create, issue
from services.backplane.security.credentials import FleetCredentials
from services.backplane.security.roles import Role
from services.backplane.security.settings import FleetSettings
from services.backplane.settings import Document
from services.gateway.settings import ApiKey, AuthSettings
from services.registry.wire import running
from tests.doubles.registry_neuron import LOOPBACK, eventually
from tests.doubles.registry_stand_ins import document
from tests.integration.gateway.fleet import Fleet

KEYS = (
    ApiKey("root", key="sk-admin", console="admin"),
    ApiKey("op", key="sk-op", console="operate"),
)
ADMIN, OPERATOR = {"x-api-key": "sk-admin"}, {"x-api-key": "sk-op"}


def fleet_settings(folder: pathlib.Path, *roles: Role) -> FleetSettings:
    name = "+".join(role.value for role in roles)
    issue(folder, list(roles), out=folder / name, days=2)
    return FleetSettings(
        ca=str(folder / "ca.pem"),
        certificate=str(folder / f"{name}.pem"),
        key=str(folder / f"{name}.key"),
    )


class Audited:
    """A gateway and a registry with certificates, and the folder of their audit logs."""

    def __init__(self, folder: pathlib.Path, gateway: Fleet, registry: str, operator: Any) -> None:
        self.folder = folder
        self.gateway = gateway
        self.registry = registry
        self.operator = operator

    def told(self, service: str) -> list[dict[str, str]]:
        path = self.folder / f"audit-{service}.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
async def audited(tmp_path: pathlib.Path) -> AsyncGenerator[Audited]:
    pki, audit = tmp_path / "pki", tmp_path / "audit"
    create(pki)
    own = fleet_settings(pki, Role.REGISTRY)
    settings = document(tmp_path)
    tables = {
        **settings.tables,
        "fleet": {"ca": own.ca, "certificate": own.certificate, "key": own.key},
        "audit": {"folder": str(audit)},
    }
    both = FleetCredentials(fleet_settings(pki, Role.GATEWAY, Role.OPERATOR))
    operator = FleetCredentials(fleet_settings(pki, Role.OPERATOR))
    async with contextlib.AsyncExitStack() as stack:
        address = str(
            await stack.enter_async_context(running(Document(tables, "test"), listen=LOOPBACK))
        )
        fleet = Fleet()
        fleet.registry.address = address
        await fleet.start_gateway(
            AuthSettings(keys=KEYS), credentials=both, audit=AuditSettings(folder=str(audit))
        )
        stack.push_async_callback(fleet.stop)
        channel = await stack.enter_async_context(
            open_channel(address, operator, role=Role.REGISTRY)
        )
        yield Audited(audit, fleet, address, channel)


async def test_an_operation_over_http_is_told_by_both_with_who_it_was(audited):
    headers = {**ADMIN, "x-request-id": "mine-1"}
    made = await audited.gateway.client.post("/admin/keys", json={"name": "ann"}, headers=headers)
    key_id = made.json()["key"]["id"]

    await eventually(lambda: audited.told("gateway"))
    (at_gateway,), (at_registry,) = audited.told("gateway"), audited.told("registry")
    assert ("key.create", "key static:root", "root", "127.0.0.1", "mine-1", "ok") == tuple(
        at_gateway[name]
        for name in ("operation", "who", "principal", "source", "request_id", "result")
    )
    assert f"name=ann, id={key_id}" == at_gateway["target"] == at_registry["target"]
    assert "key static:root (root) 127.0.0.1" == at_registry["on_behalf"]
    assert "gateway, operator" in at_registry["who"]
    assert "mine-1" == at_registry["request_id"]
    assert made.json()["secret"] not in (audited.folder / "audit-registry.jsonl").read_text()


async def test_an_operator_is_told_by_his_certificate_and_speaks_for_nobody(audited):
    stub = key_grpc.KeyServiceStub(audited.operator)
    metadata = (("x-cortex-on-behalf", "somebody else"),)

    await stub.CreateKey(pb.CreateKeyRequest(name="bob", principal="Bob"), metadata=metadata)

    (entry,) = audited.told("registry")
    assert entry["who"].startswith("certificate ")
    assert entry["who"].endswith(" (operator)")
    assert entry["target"].startswith("name=bob, principal=Bob, id=")
    assert "on_behalf" not in entry


async def test_what_is_refused_is_told_too(audited):
    stub = op_grpc.OperatorServiceStub(audited.operator)
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.PinModel(op.PinModelRequest(model="nothing"))
    client = audited.gateway.client
    await client.post("/admin/keys", json={"name": "x"}, headers=OPERATOR)
    await client.post("/ui/cordon", json={"neuron": "nowhere"}, headers=OPERATOR)
    await client.post("/ui/cordon", json={"neuron": "nowhere"}, headers={"x-api-key": "sk-none"})
    await client.get("/admin/keys", headers=ADMIN)

    await eventually(lambda: len(audited.told("gateway")) == 2)
    assert [("key.create", "op", "FORBIDDEN"), ("neuron.cordon", "op", "NOT_FOUND")] == [
        (one["operation"], one["principal"], one["result"]) for one in audited.told("gateway")
    ]
    assert [("model.pin", "MODEL_UNKNOWN"), ("neuron.cordon", "NOT_FOUND")] == [
        (one["operation"], one["result"]) for one in audited.told("registry")
    ]
    labels = {"operation": "key.create", "result": "FORBIDDEN"}
    assert 1 == audited.gateway.metric("cortex_gateway_operations_total", **labels)


async def test_every_operation_of_the_registry_is_named():
    """A method that changes something and is not named would be missing from the log."""
    from services.registry.api.access import OPERATIONS

    shows = {"GetFleet", "ListModels", "ExplainPlacement", "ListKeys", "GetKey", "ListKeyGroups"}
    shows |= {"ListWaitingHosts"}
    follows = {"WatchKeys", "ReportKeyUse", "WatchEvents"}
    services = (
        op.DESCRIPTOR.services_by_name["OperatorService"],
        pb.DESCRIPTOR.services_by_name["KeyService"],
    )
    for service in services:
        for method in service.methods:
            name = f"/{service.full_name}/{method.name}"
            assert (name in OPERATIONS) != (method.name in shows | follows), name

"""The neuron's place in a registry, against a registry that only listens."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import Callable

import pytest
from google.protobuf import duration_pb2
from prometheus_client import CollectorRegistry

from cortex.v1 import model_pb2 as model
from cortex.v1 import registry_service_pb2 as registry
from cortex.v1 import registry_service_pb2_grpc as registry_grpc
from services.backplane.address import Address
from services.backplane.errors import FleetError, Reason
from services.backplane.metrics import RpcMetrics
from services.backplane.rpc.server import Server
from tests.doubles.neuron_host import PATIENCE_SECONDS, running_neuron


class Listener(registry_grpc.RegistryServiceServicer):
    """Grants leases and remembers what it hears."""

    def __init__(self) -> None:
        self.heard: list[registry.AttachRequest] = []
        self.memberships = 0
        self.leader = ""
        self.refusal: FleetError | None = None
        self.lease_seconds = 6.0
        self._news = asyncio.Event()
        self._server: Server | None = None
        self.address = "127.0.0.1:0"

    async def Attach(self, request_iterator, context):
        self.memberships += 1
        if self.refusal is not None:
            raise self.refusal
        lease = duration_pb2.Duration()
        lease.FromMilliseconds(round(self.lease_seconds * 1000))
        yield registry.AttachResponse(lease=lease, leader_address=self.leader)
        async for request in request_iterator:
            self.heard.append(request)
            self._news.set()

    async def WatchFleet(self, request, context):
        raise FleetError(Reason.NOT_SUPPORTED, "it only listens")
        yield

    async def EnsureModel(self, request, context):
        raise FleetError(Reason.NOT_SUPPORTED, "it only listens")
        yield

    async def start(self) -> None:
        metrics = RpcMetrics(CollectorRegistry(), "registry")
        self._server = Server(service_names=["cortex.v1.RegistryService"], metrics=metrics)
        self._server.add(registry_grpc.add_RegistryServiceServicer_to_server, self)
        self.address = str(await self._server.start(Address.parse(self.address)))

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    async def until(self, holds: Callable[[list[registry.AttachRequest]], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not holds(self.heard):
                self._news.clear()
                await self._news.wait()


@pytest.fixture
async def listener():
    listener = Listener()
    await listener.start()
    try:
        yield listener
    finally:
        await listener.stop()


def reports(heard: list[registry.AttachRequest]):
    return [request.report for request in heard if request.HasField("report")]


async def test_hello_then_reports_then_a_farewell(tmp_path: pathlib.Path, listener):
    async with running_neuron(tmp_path, registry=(listener.address,)) as host:
        await listener.until(lambda heard: len(reports(heard)) >= 1)
        hello = listener.heard[0].hello
        assert hello.name == "beast"
        assert hello.address == str(host.served.address)
        assert hello.incarnation_id == host.served.identity.incarnation_id

    assert listener.heard[-1].HasField("farewell")
    assert reports(listener.heard)[-1].draining
    sequences = [report.sequence for report in reports(listener.heard)]
    assert sequences == sorted(set(sequences))
    assert listener.memberships == 1


async def test_a_load_is_reported_as_it_goes(tmp_path, listener):
    async with running_neuron(tmp_path, registry=(listener.address,)) as host:
        host.script("bravo")
        await host.load("bravo")

        def is_ready(heard) -> bool:
            return any(
                one.state == model.INSTANCE_STATE_READY
                for report in reports(heard)
                for one in report.instances
            )

        await listener.until(is_ready)


async def test_reports_come_within_a_short_lease_though_nothing_changes(tmp_path, listener):
    listener.lease_seconds = 0.3
    async with running_neuron(tmp_path, registry=(listener.address,)):
        await listener.until(lambda heard: len(reports(heard)) >= 6)


async def test_a_registry_that_restarts_gets_the_neuron_back(tmp_path, listener):
    async with running_neuron(tmp_path, registry=(listener.address,)):
        await listener.until(lambda heard: len(reports(heard)) >= 1)
        await listener.stop()
        listener.heard.clear()

        await listener.start()

        await listener.until(lambda heard: len(reports(heard)) >= 1)
        assert listener.heard[0].HasField("hello")


async def test_the_next_registry_of_the_list_is_tried(tmp_path, listener):
    dead = "127.0.0.1:1"
    async with running_neuron(tmp_path, registry=(dead, listener.address)):
        await listener.until(lambda heard: len(reports(heard)) >= 1)


async def test_a_standby_sends_the_neuron_to_its_leader(tmp_path, listener):
    standby = Listener()
    standby.leader = listener.address
    await standby.start()
    try:
        async with running_neuron(tmp_path, registry=(standby.address,)):
            await listener.until(lambda heard: len(reports(heard)) >= 1)
        assert listener.heard[-1].HasField("farewell")
    finally:
        await standby.stop()


async def test_a_registry_that_refuses_is_asked_again(tmp_path, listener):
    listener.refusal = FleetError(Reason.FORBIDDEN, "not you")
    async with running_neuron(tmp_path, registry=(listener.address,)):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while listener.memberships < 2:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(listener._news.wait(), 0.05)

        listener.refusal = None

        await listener.until(lambda heard: len(reports(heard)) >= 1)

"""A registry that says what the test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from prometheus_client import CollectorRegistry

from cortex.v1 import accounting_service_pb2_grpc as accounting_grpc
from cortex.v1 import key_service_pb2_grpc as key_grpc
from cortex.v1 import registry_service_pb2 as registry
from cortex.v1 import registry_service_pb2_grpc as registry_grpc
from services.backplane.address import Address
from services.backplane.errors import FleetError, Reason
from services.backplane.metrics import RpcMetrics
from services.backplane.process.faults import Faults
from services.backplane.rpc.server import Server
from services.registry.api.key_servicer import KeyServicer
from services.registry.holder import LeaderHolder
from services.registry.keys.directory import KeyDirectory
from services.registry.store.sqlite import SqliteStore
from services.registry.store.store import Facts, Store
from services.registry.store.write_behind import FactWriter
from tests.doubles.stand_in_accounting import StandInLessor

Step = registry.EnsureModelResponse | FleetError | asyncio.Event


class KeyTerm:
    """A term of which only the keys are there, with a store in memory."""

    leads = True

    def __init__(self, store: Store, facts: Facts) -> None:
        self.store = store
        self.keys = KeyDirectory(facts, FactWriter(store, Faults(CollectorRegistry(), "test")))
        self.incarnation_id = "keys"
        self.ended = asyncio.Event()

    @classmethod
    async def made(cls) -> KeyTerm:
        store = SqliteStore(":memory:")
        await store.open()
        return cls(store, await store.load())


class _Accounting(accounting_grpc.AccountingServiceServicer):
    def __init__(self, lessor: StandInLessor) -> None:
        self._lessor = lessor

    async def LeaseAllowances(self, request, context):
        return await self._lessor.lease(request)

    async def ReportUsage(self, request, context):
        return await self._lessor.report(request)


class StandInRegistry(registry_grpc.RegistryServiceServicer):
    """WatchFleet from a list of changes, EnsureModel from a list of steps; limits are shared."""

    def __init__(self) -> None:
        self.incarnation = "first"
        self.neurons: dict[str, registry.Neuron] = {}
        self.catalogue = registry.CatalogueView()
        self.steps: list[Step] = []
        self.ensured: list[registry.EnsureModelRequest] = []
        self.watched: list[registry.WatchFleetRequest] = []
        self.lessor = StandInLessor()
        self.address = ""
        self.term: KeyTerm | None = None
        self._revision = 0
        self._watchers: set[asyncio.Queue[registry.WatchFleetResponse]] = set()
        self._server: Server | None = None

    async def start(self, address: str = "127.0.0.1:0") -> str:
        metrics = RpcMetrics(CollectorRegistry(), "registry")
        self._server = Server(service_names=["cortex.v1.RegistryService"], metrics=metrics)
        self._server.add(registry_grpc.add_RegistryServiceServicer_to_server, self)
        if self.term is not None:
            holder = LeaderHolder[Any]()
            holder.take(self.term)
            self._server.add(key_grpc.add_KeyServiceServicer_to_server, KeyServicer(holder))
        self._server.add(
            accounting_grpc.add_AccountingServiceServicer_to_server, _Accounting(self.lessor)
        )
        self.address = str(await self._server.start(Address.parse(address)))
        return self.address

    async def stop(self) -> None:
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    def add_model(self, model: str, aliases: Sequence[str] = (), **facts: object) -> None:
        self.catalogue.models.add(model=model, aliases=aliases, configured=True, **facts)
        self._publish(registry.WatchFleetResponse(catalogue=self.catalogue))

    def put(self, neuron: registry.Neuron) -> None:
        self.neurons[neuron.identity.name] = neuron
        self._publish(registry.WatchFleetResponse(neuron_changed=neuron))

    def remove(self, name: str) -> None:
        self.neurons.pop(name, None)
        self._publish(registry.WatchFleetResponse(neuron_removed=name))

    def _publish(self, change: registry.WatchFleetResponse) -> None:
        self._revision += 1
        change.revision = self._revision
        change.registry_incarnation_id = self.incarnation
        for watcher in self._watchers:
            watcher.put_nowait(change)

    async def WatchFleet(self, request, context):
        self.watched.append(request)
        changes: asyncio.Queue[registry.WatchFleetResponse] = asyncio.Queue()
        snapshot = registry.FleetSnapshot(neurons=self.neurons.values(), catalogue=self.catalogue)
        first = registry.WatchFleetResponse(
            revision=self._revision, registry_incarnation_id=self.incarnation, snapshot=snapshot
        )
        self._watchers.add(changes)
        try:
            yield first
            while True:
                yield await changes.get()
        finally:
            self._watchers.discard(changes)

    async def EnsureModel(self, request, context):
        self.ensured.append(request)
        if not self.steps:
            raise FleetError(Reason.NO_ROOM, "There is no room.", retry_after_seconds=7)
        for step in self.steps:
            if isinstance(step, FleetError):
                raise step
            if isinstance(step, asyncio.Event):
                await step.wait()
            else:
                yield step


def placed(neuron: str, address: str, instance_id: str, model: str) -> registry.EnsureModelResponse:
    return registry.EnsureModelResponse(
        placed=registry.Placement(
            neuron=neuron, address=address, instance_id=instance_id, model=model
        )
    )

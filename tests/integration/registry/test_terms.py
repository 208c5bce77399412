"""The end of a leadership, and what must not outlive it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import pathlib
import sqlite3
from typing import Any

import grpc
import psutil
import pytest

from cortex.v1 import operator_service_pb2 as op
from services.backplane.address import Address
from services.backplane.errors import FleetError, Reason
from services.backplane.metrics import new_registry
from services.backplane.process.faults import Faults
from services.backplane.process.lifecycle import Shutdown
from services.backplane.rpc.status import from_rpc_error
from services.registry import settings as registry_settings
from services.registry.accounting.device_use import DeviceUseIntake
from services.registry.catalogue.catalogue import EMPTY
from services.registry.election import Election
from services.registry.holder import LeaderHolder
from services.registry.joining.joining import Joining
from services.registry.joining.revocations import Revocations
from services.registry.metrics import RegistryMetrics
from services.registry.rpc.neuron_dialer import keep_dialling
from services.registry.store.leader_lease import LeaderLease
from services.registry.store.sqlite import SqliteStore
from services.registry.store.store import FactKind, facts_of
from services.registry.term import LeaderTerm
from tests.doubles.registry_neuron import MIB, ScriptedNeuron, eventually
from tests.doubles.registry_stand_ins import Fleet, document, running_fleet

ONE = '[[models]]\nid = "a"\nsource = "path:/a"\nmemory = "10MiB"\n'

UNKNOWN: Any = 99  # of a newer contract


class Deposing(SqliteStore):
    """A store that another registry takes over, and that is slow to write then."""

    def __init__(self) -> None:
        super().__init__(":memory:")
        self.lease: LeaderLease | None = LeaderLease(7)
        self.deposed = asyncio.Event()
        self.may_write = asyncio.Event()

    async def try_lead(self, address: str) -> LeaderLease | None:
        return self.lease

    async def renew(self) -> LeaderLease | None:
        if self.lease is None:
            self.deposed.set()
        return self.lease

    async def leader(self) -> str:
        return "elsewhere:1"

    async def put(self, kind: FactKind, key: str, value: str) -> None:
        await self.may_write.wait()
        await super().put(kind, key, value)


async def test_who_asks_while_a_leadership_ends_is_sent_away_and_not_kept(tmp_path: pathlib.Path):
    """The last writes may take seconds; nobody may begin to wait for what has ended."""
    settings = registry_settings.read(document(tmp_path, ONE, leader_lease_seconds=1.0))
    store, holder, shutdown = Deposing(), LeaderHolder[LeaderTerm](), Shutdown()
    await store.open()
    collectors = new_registry("registry")
    metrics = RegistryMetrics(collectors)
    leading = asyncio.create_task(
        Election(
            settings=settings,
            catalogue=EMPTY,
            store=store,
            holder=holder,
            metrics=metrics,
            faults=Faults(collectors, "registry"),
            shutdown=shutdown,
            address="127.0.0.1:1",
        ).run()
    )
    await eventually(lambda: holder.term is not None)
    term = holder.leading_term()
    term.remember_neuron("one", "one:1")

    store.lease = None
    await store.deposed.wait()
    await eventually(term.ended.is_set)

    with pytest.raises(FleetError) as refused:
        holder.leading_term()
    assert refused.value.reason is Reason.NOT_LEADER
    store.may_write.set()
    shutdown.request()
    await leading
    await store.close()


async def test_no_connection_to_a_neuron_outlives_its_orders(tmp_path):
    """Neurons on ephemeral ports come back at another address each time."""
    async with running_fleet(document(tmp_path, ONE)) as fleet:
        neuron = ScriptedNeuron("one", capacity=25 * MIB)
        await fleet.add(neuron)
        port = Address.parse(neuron.address).port

        await fleet.placed("a")

        await eventually(lambda: port not in _connected_ports())


def _connected_ports() -> set[int]:
    gc.collect()  # a call of gRPC and its channel refer to each other
    connections = psutil.Process().net_connections("tcp")
    return {c.raddr.port for c in connections if c.raddr and c.status == "ESTABLISHED"}


async def test_a_newer_neuron_whose_words_are_not_all_known_is_a_member(tmp_path):
    """Its load has a phase that this registry has no name for."""
    async with running_fleet(document(tmp_path, ONE)) as fleet:
        neuron = ScriptedNeuron("one", capacity=25 * MIB)
        await fleet.add(neuron)
        await fleet.placed("a")
        for instance in neuron.instances.values():
            instance.load_progress.phase = UNKNOWN
        neuron.changed()
        neuron.work("a", 1)

        await fleet.heard(neuron)


class Stumbling:
    """A registry with a defect that shows once."""

    def __init__(self) -> None:
        self.leader_lease = LeaderLease()
        self.credentials = None
        self.revocations = Revocations(None, lambda: None)
        nothing: Any = None
        self.joining = Joining(
            folder=None,
            lifetime_seconds=60.0,
            facts=facts_of([]),
            fact_writer=nothing,
            revocations=self.revocations,
        )
        self.device_use = DeviceUseIntake(nothing)
        self.woken = asyncio.Event()
        self.stumbled = False

    @property
    def control(self) -> Any:
        if not self.stumbled:
            self.stumbled = True
            raise RuntimeError("a defect")
        self.woken.set()
        raise FleetError(Reason.INTERNAL, "That is all that is tested.")

    @property
    def faults(self) -> Faults:
        return Faults(new_registry("registry"), "registry")

    def wake(self) -> None:
        """Nobody waits."""

    def remember_neuron(self, name: str, address: str) -> None:
        """Nobody asks."""


async def test_a_defect_does_not_end_the_dialling_of_a_neuron():
    host = Stumbling()
    entry = registry_settings.NeuronEntry("one", "127.0.0.1:1")
    dialling = asyncio.create_task(keep_dialling(entry, host))
    try:
        async with asyncio.timeout(60):
            await host.woken.wait()
    finally:
        dialling.cancel()
        await asyncio.gather(dialling, return_exceptions=True)


async def test_a_name_that_cannot_be_printed_is_refused(tmp_path):
    async with running_fleet(document(tmp_path, ONE)) as fleet:
        neuron = ScriptedNeuron("one\0two")
        neuron.address = "127.0.0.1:1"

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await neuron.attach_once(fleet.address)

        error = from_rpc_error(refused.value)
        assert (error.reason, error.field) == (Reason.BAD_REQUEST, "hello.name")


async def test_when_models_were_first_known_outlives_a_restart(tmp_path):
    settings = document(tmp_path, ONE)
    async with running_fleet(settings) as fleet:
        first = await _created(fleet)
    database = sqlite3.connect(tmp_path / "registry.sqlite")
    with contextlib.closing(database), database:
        database.execute("UPDATE facts SET value = value - 1000 WHERE kind = 'model'")

    async with running_fleet(settings) as fleet:
        assert await _created(fleet) == first - 1000


async def test_facts_that_cannot_be_read_do_not_keep_a_registry_from_starting(tmp_path):
    settings = document(tmp_path, ONE)
    async with running_fleet(settings):
        pass
    database = sqlite3.connect(tmp_path / "registry.sqlite")
    with contextlib.closing(database), database:
        database.execute("INSERT OR REPLACE INTO facts VALUES ('model', 'a', 'not a number')")
        database.execute("INSERT OR REPLACE INTO facts VALUES ('footprint', 'a@1@', '{}}')")

    async with running_fleet(settings) as fleet:
        assert await _created(fleet) > 0


async def _created(fleet: Fleet) -> int:
    models = (await fleet.operator.ListModels(op.ListModelsRequest())).models
    return next(m.model.created_unix_seconds for m in models if m.model.model == "a")

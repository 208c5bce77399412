"""Several registries on one real PostgreSQL: one leads, the others stand by and take over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncGenerator, Generator
from typing import Any

import grpc
import psycopg
import pytest

from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import operator_service_pb2_grpc
from cortex.v1 import registry_service_pb2 as reg
from cortex.v1 import registry_service_pb2_grpc as reg_grpc
from services.backplane.errors import FleetError, Reason
from services.backplane.rpc.channels import open_channel
from services.backplane.rpc.status import from_rpc_error
from services.registry.store.postgres import PostgresStore
from services.registry.store.store import FactKind, StoreError
from tests.doubles.postgres_server import postgres
from tests.doubles.registry_stand_ins import (
    LOOPBACK,
    MIB,
    ScriptedNeuron,
    document,
    eventually,
    running_fleet,
)

ONE = '[[models]]\nid = "a"\nsource = "path:/a"\nmemory = "10MiB"\n'
TWO = ONE + '[[models]]\nid = "b"\nsource = "path:/b"\nmemory = "10MiB"\n'


@pytest.fixture(scope="module")
def server() -> Generator[str]:
    with postgres() as url:
        yield url


@pytest.fixture
async def url(server: str) -> AsyncGenerator[str]:
    """The server with an empty database."""
    yield server
    async with await psycopg.AsyncConnection.connect(server, autocommit=True) as connection:
        await connection.execute("DROP TABLE IF EXISTS cortex_facts, cortex_leader")


async def facts(address: str) -> op.RegistryFacts:
    channel = open_channel(address)
    try:
        stub: Any = operator_service_pb2_grpc.OperatorServiceStub(channel)
        answer = await stub.GetFleet(op.GetFleetRequest(), timeout=2)
        return answer.registry
    finally:
        await channel.close()


async def role_is(address: str, role: str) -> bool:
    try:
        return (await facts(address)).role == role
    except grpc.aio.AioRpcError:
        return False


async def test_facts_are_kept_and_removed(url):
    store = PostgresStore(url, lease_seconds=5.0)
    await store.open()
    assert await store.try_lead("one:1")
    await store.put(FactKind.PIN, "a", "one")
    await store.put(FactKind.PIN, "a", "two")
    await store.put(FactKind.CORDON, "beast", "")
    await store.delete(FactKind.CORDON, "beast")
    await store.close()
    again = PostgresStore(url, lease_seconds=5.0)
    await again.open()

    kept = await again.load()

    assert kept[FactKind.PIN] == {"a": "two"}
    assert kept[FactKind.CORDON] == {}
    await again.close()


async def test_one_leads_and_the_lock_dies_with_its_connection(url):
    one, two = (PostgresStore(url, lease_seconds=5.0) for _ in range(2))
    await one.open()
    await two.open()

    assert await one.try_lead("one:1")
    assert not await two.try_lead("two:1")
    assert await two.leader() == "one:1"
    await one.close()

    async def takes_over() -> bool:
        return await two.try_lead("two:1") is not None

    await eventually(takes_over)
    assert await two.renew()
    assert await two.leader() == "two:1"
    await two.close()


async def test_a_server_that_goes_away_is_a_store_error_and_ends_the_leadership(url):
    store = PostgresStore(url, lease_seconds=5.0)
    await store.open()
    assert await store.try_lead("one:1")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as killer:
        await killer.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'cortex-registry'"
        )

    with pytest.raises(StoreError):
        await store.renew()
    assert await store.renew() is None
    with pytest.raises(StoreError):
        await store.put(FactKind.PIN, "a", "")
    with pytest.raises(StoreError):
        await store.load()
    assert (await store.load())[FactKind.PIN] == {}
    await store.close()


async def test_a_leader_that_is_not_heard_of_is_deposed_whatever_it_holds(url):
    """Its session, and with it its lock, is alive all the time: it is frozen."""
    frozen, other = PostgresStore(url, lease_seconds=0.3), PostgresStore(url, lease_seconds=5.0)
    await frozen.open()
    await other.open()
    first = await frozen.try_lead("one:1")
    assert first is not None
    await frozen.put(FactKind.PIN, "a", "one")
    assert await other.try_lead("two:1") is None

    await eventually(lambda: other.try_lead("two:1"))

    second = await other.renew()
    assert second is not None
    assert second.epoch > first.epoch
    assert await frozen.leader() == "two:1"
    for write in (frozen.put(FactKind.PIN, "a", "late"), frozen.delete(FactKind.PIN, "a")):
        with pytest.raises(StoreError, match="Another registry leads"):
            await write
    assert await frozen.renew() is None
    assert await frozen.try_lead("one:1") is None
    assert (await other.load())[FactKind.PIN] == {"a": "one"}
    await frozen.close()
    await other.close()


async def test_who_resigns_is_followed_at_once(url):
    one, two = (PostgresStore(url, lease_seconds=60.0) for _ in range(2))
    await one.open()
    await two.open()
    first = await one.try_lead("one:1")
    await one.resign()

    second = await two.try_lead("two:1")

    assert first is not None
    assert second is not None
    assert second.epoch > first.epoch
    await one.close()
    await two.close()


async def test_of_many_that_try_at_once_one_leads(url):
    stores = [PostgresStore(url, lease_seconds=60.0) for _ in range(6)]
    await asyncio.gather(*(store.open() for store in stores))

    for _ in range(5):
        won = await asyncio.gather(*(store.try_lead("x") for store in stores))

        assert sum(lease is not None for lease in won) <= 1
        for store, lease in zip(stores, won, strict=True):
            if lease is not None:
                await store.resign()
    await asyncio.gather(*(store.close() for store in stores))


async def test_a_new_database_gives_no_lesser_epochs_than_the_old_one_did(url):
    old = PostgresStore(url, lease_seconds=5.0)
    await old.open()
    first = await old.try_lead("one:1")
    await old.close()
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as operator:
        await operator.execute("DROP TABLE cortex_leader")

    new = PostgresStore(url, lease_seconds=5.0)
    await new.open()
    second = await new.try_lead("one:1")

    assert first is not None
    assert second is not None
    assert second.epoch >= first.epoch  # at most one leader a second
    await new.close()


@pytest.mark.parametrize("name", ["a\0b", "x" * 10_000_000])
async def test_a_fact_that_cannot_be_written_does_not_cost_the_leadership(url, name):
    store = PostgresStore(url, lease_seconds=5.0)
    await store.open()
    assert await store.try_lead("one:1")

    with pytest.raises(StoreError):
        await store.put(FactKind.NEURON, name, "")

    assert await store.renew()
    await store.close()


async def test_an_operator_who_leaves_in_the_middle_does_not_cost_the_leadership(url):
    store = PostgresStore(url, lease_seconds=5.0)
    await store.open()
    assert await store.try_lead("one:1")
    async with await psycopg.AsyncConnection.connect(url) as blocker:
        await blocker.execute("LOCK TABLE cortex_facts")
        writing = asyncio.create_task(store.put(FactKind.PIN, "a", ""))
        await eventually(lambda: _waits_for_a_lock(url))

        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)

        assert await store.renew()
    await store.close()


async def _waits_for_a_lock(url: str) -> bool:
    async with await psycopg.AsyncConnection.connect(url) as looker:
        cursor = await looker.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        row = await cursor.fetchone()
    return bool(row and row[0])


async def test_a_standby_names_the_leader_and_takes_over_with_what_is_durable(url, tmp_path):
    settings = document(tmp_path, ONE, store=url)
    async with running_fleet(settings) as leader:
        await leader.operator.PinModel(op.PinModelRequest(model="a"))
        async with running_fleet(settings) as standby:
            assert await role_is(standby.address, "standby")
            await eventually(lambda: _names_leader(standby.address, leader.address))
            with pytest.raises(FleetError) as refused:
                await standby.ensure("a")
            assert refused.value.reason is Reason.NOT_LEADER
            assert refused.value.facts["leader_address"] == leader.address
            call = standby.registry.Attach()
            answers = [answer async for answer in call]
            assert [a.leader_address for a in answers] == [leader.address]
            with pytest.raises(grpc.aio.AioRpcError) as watching:
                async for _ in standby.registry.WatchFleet(reg.WatchFleetRequest()):
                    pass
            assert from_rpc_error(watching.value).reason is Reason.NOT_LEADER


async def _names_leader(address: str, leader: str) -> bool:
    return (await facts(address)).leader_address == leader


@contextlib.asynccontextmanager
async def leading_process(url, catalogue, **settings) -> AsyncGenerator[tuple[str, Any]]:
    """A registry in a process of its own, once it leads: its address, and the process."""
    address = f"127.0.0.1:{_free_port()}"
    named = {
        "REGISTRY__LISTEN": address,
        "REGISTRY__METRICS_LISTEN": "",
        "REGISTRY__MODELS": str(catalogue),
        "REGISTRY__STORE": url,
        **settings,
    }
    environment = {**os.environ, **{f"CORTEX_{key}": value for key, value in named.items()}}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.registry", env=environment
    )
    try:
        await eventually(lambda: role_is(address, "leader"), 30.0)
        yield address, process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_kill_9_of_the_leader_hands_over_within_seconds(url, tmp_path):
    catalogue = tmp_path / "models.toml"
    catalogue.write_text(ONE)
    async with (
        leading_process(url, catalogue) as (leader, process),
        running_fleet(document(tmp_path, ONE, store=url)) as standby,
    ):
        neuron = ScriptedNeuron("one")
        async with neuron.served(), following(neuron, leader, standby.address):
            first = await _placed(leader)

            process.send_signal(signal.SIGKILL)
            await process.wait()
            await eventually(lambda: role_is(standby.address, "leader"))
            again = await standby.placed("a")

            assert again.instance_id == first.instance_id
            assert len(neuron.loads) == 1


@pytest.mark.slow
async def test_a_frozen_leader_is_deposed_and_does_nothing_when_it_wakes(url, tmp_path):
    """SIGSTOP with a drain due: whoever wakes up late must not carry it out."""
    catalogue = tmp_path / "models.toml"
    catalogue.write_text(TWO)
    brisk = {
        "REGISTRY__LEADER_LEASE_SECONDS": "1.5",
        "EVICTION__PATIENCE_SECONDS": "2.0",
        "EVICTION__MINIMUM_RESIDENCY_SECONDS": "0",
    }
    async with (
        leading_process(url, catalogue, **brisk) as (leader, process),
        running_fleet(document(tmp_path, TWO, store=url, leader_lease_seconds=1.5)) as standby,
    ):
        neuron = ScriptedNeuron("one", capacity=15 * MIB)
        async with neuron.served(), following(neuron, leader, standby.address):
            await _placed(leader)
            neuron.work("a", 1)
            waiting = asyncio.create_task(_placed(leader, "b"))
            await eventually(lambda: _waits(leader, "b"))

            process.send_signal(signal.SIGSTOP)
            try:
                await eventually(lambda: role_is(standby.address, "leader"))
                await standby.until(lambda names: names == {"one"}, 30.0)
            finally:
                process.send_signal(signal.SIGCONT)
            await eventually(lambda: role_is(leader, "standby"))

            # it had waited long enough for the drain while it was frozen, and did not order it
            with pytest.raises(grpc.aio.AioRpcError):
                await waiting
            assert neuron.unloads == []
            await eventually(lambda: _names_leader(leader, standby.address))
            neuron.work("a", 0)
            assert (await standby.placed("b")).neuron == "one"
            old, *new = neuron.epochs
            assert new
            assert all(epoch > old for epoch in new)


@contextlib.asynccontextmanager
async def following(neuron: ScriptedNeuron, *addresses: str) -> AsyncGenerator[None]:
    """The neuron attaches to each in turn, as the daemon does."""
    task = asyncio.create_task(_follow(neuron, addresses))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _waits(address: str, model: str) -> bool:
    channel = open_channel(address)
    try:
        stub: Any = operator_service_pb2_grpc.OperatorServiceStub(channel)
        fleet = await stub.GetFleet(op.GetFleetRequest(), timeout=2)
        return any(pending.model == model for pending in fleet.pending)
    finally:
        await channel.close()


async def _follow(neuron: ScriptedNeuron, addresses: tuple[str, ...]) -> None:
    while True:
        for address in addresses:
            try:
                await neuron.attach_once(address)
            except grpc.aio.AioRpcError:
                continue
            await asyncio.sleep(0.02)


async def _placed(address: str, model: str = "a") -> reg.Placement:
    channel = open_channel(address)
    try:
        stub: Any = reg_grpc.RegistryServiceStub(channel)
        while True:
            try:
                async for step in stub.EnsureModel(reg.EnsureModelRequest(model=model)):
                    if step.HasField("placed"):
                        return step.placed
            except grpc.aio.AioRpcError as error:
                if from_rpc_error(error).reason is not Reason.NO_NEURONS:
                    raise
                await asyncio.sleep(0.05)
    finally:
        await channel.close()


async def test_a_url_that_cannot_be_used_is_said_in_one_sentence(tmp_path):
    from services.backplane.settings import SettingsError
    from services.registry.wire import running

    for url, word in (("mysql://x", "none of"), ("postgresql://127.0.0.1:1/x", "PostgreSQL")):
        with pytest.raises(SettingsError, match=word):
            async with running(document(tmp_path, ONE, store=url), listen=LOOPBACK):
                pass


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

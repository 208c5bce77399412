"""Several registries on one real PostgreSQL: one leads, the others stand by and take over."""

from __future__ import annotations

import asyncio
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
from services.backplane.channels import open_channel
from services.backplane.errors import FleetError, Reason
from services.backplane.status import from_rpc_error
from services.registry.postgres_store import PostgresStore
from services.registry.store import Kind, StoreError
from tests.rpc.postgres_server import postgres
from tests.rpc.registry_stand_ins import (
    LOOPBACK,
    ScriptedNeuron,
    document,
    eventually,
    running_fleet,
)

ONE = '[[models]]\nid = "a"\nsource = "path:/a"\nmemory = "10MiB"\n'


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
    store = PostgresStore(url)
    await store.open()
    await store.put(Kind.PIN, "a", "one")
    await store.put(Kind.PIN, "a", "two")
    await store.put(Kind.CORDON, "beast", "")
    await store.delete(Kind.CORDON, "beast")
    await store.close()
    again = PostgresStore(url)
    await again.open()

    kept = await again.load()

    assert kept[Kind.PIN] == {"a": "two"}
    assert kept[Kind.CORDON] == {}
    await again.close()


async def test_one_leads_and_the_lock_dies_with_its_connection(url):
    one, two = PostgresStore(url), PostgresStore(url)
    await one.open()
    await two.open()

    assert await one.try_lead("one:1")
    assert not await two.try_lead("two:1")
    assert await two.leader() == "one:1"
    await one.close()

    async def takes_over() -> bool:
        return await two.try_lead("two:1")

    await eventually(takes_over)
    assert await two.still_leads()
    assert await two.leader() == "two:1"
    await two.close()


async def test_a_server_that_goes_away_is_a_store_error_and_ends_the_leadership(url):
    store = PostgresStore(url)
    await store.open()
    assert await store.try_lead("one:1")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as killer:
        await killer.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'cortex-registry'"
        )

    with pytest.raises(StoreError):
        await store.put(Kind.PIN, "a", "")

    assert not await store.still_leads()
    assert (await store.load())[Kind.PIN] == {}
    await store.close()


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


async def test_kill_9_of_the_leader_hands_over_within_seconds(url, tmp_path):
    catalogue = tmp_path / "models.toml"
    catalogue.write_text(ONE)
    leader_port = _free_port()
    environment = {
        **os.environ,
        "CORTEX_REGISTRY__LISTEN": f"127.0.0.1:{leader_port}",
        "CORTEX_REGISTRY__METRICS_LISTEN": "",
        "CORTEX_REGISTRY__MODELS": str(catalogue),
        "CORTEX_REGISTRY__STORE": url,
    }
    leader = f"127.0.0.1:{leader_port}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.registry", env=environment
    )
    try:
        await eventually(lambda: role_is(leader, "leader"), 30.0)
        settings = document(tmp_path, ONE, store=url)
        async with running_fleet(settings) as standby:
            neuron = ScriptedNeuron("one")
            async with neuron.served():
                attaching = asyncio.create_task(_follow(neuron, (leader, standby.address)))
                first = await _placed(leader)

                process.send_signal(signal.SIGKILL)
                await process.wait()
                await eventually(lambda: role_is(standby.address, "leader"))
                again = await standby.placed("a")

                assert again.instance_id == first.instance_id
                assert len(neuron.loads) == 1
                attaching.cancel()
                await asyncio.gather(attaching, return_exceptions=True)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _follow(neuron: ScriptedNeuron, addresses: tuple[str, ...]) -> None:
    """Attaches to each in turn, as the daemon does."""
    while True:
        for address in addresses:
            try:
                await neuron._attach_once(address)
            except grpc.aio.AioRpcError:
                continue
            await asyncio.sleep(0.02)


async def _placed(address: str) -> reg.Placement:
    channel = open_channel(address)
    try:
        stub: Any = reg_grpc.RegistryServiceStub(channel)
        while True:
            try:
                async for step in stub.EnsureModel(reg.EnsureModelRequest(model="a")):
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

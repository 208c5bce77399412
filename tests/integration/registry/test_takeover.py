"""Registries as processes on one real PostgreSQL, or Kubernetes: a standby takes over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncGenerator
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
from tests.doubles.processes import free_port
from tests.doubles.registry_neuron import MIB, ScriptedNeuron, eventually
from tests.doubles.registry_stand_ins import document, running_fleet

ONE = '[[models]]\nid = "a"\nsource = "path:/a"\nmemory = "10MiB"\n'
TWO = ONE + '[[models]]\nid = "b"\nsource = "path:/b"\nmemory = "10MiB"\n'


@pytest.fixture(params=["postgres", "kubernetes"])
def url(request):
    """Each store that several registries share, with nothing in it."""
    if request.param == "kubernetes":
        yield request.getfixturevalue("kubernetes")
        return
    server = request.getfixturevalue("server")
    yield server
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS cortex_facts, cortex_leader")


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
    address = f"127.0.0.1:{free_port()}"
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
    lease = {"REGISTRY__LEADER_LEASE_SECONDS": "3.0"}  # Kubernetes sees no connection that ends
    async with (
        leading_process(url, catalogue, **lease) as (leader, process),
        running_fleet(document(tmp_path, ONE, store=url, leader_lease_seconds=3.0)) as standby,
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

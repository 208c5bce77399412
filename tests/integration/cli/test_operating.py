"""The operator's commands as processes: at stand-bys, at registries that are gone, and interrupted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator

import pytest

from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import operator_service_pb2_grpc as operator_grpc
from services.backplane.errors import FleetError, Reason
from services.backplane.metrics import RpcMetrics, new_registry
from services.backplane.rpc.server import Server
from services.cli.registry_client import ask
from services.registry.api.operator_servicer import OperatorServicer
from services.registry.holder import LeaderHolder
from services.registry.term import LeaderTerm
from tests.doubles.registry_neuron import LOOPBACK, ScriptedNeuron, eventually
from tests.doubles.registry_stand_ins import Fleet, document, running_fleet

NOBODY = "127.0.0.1:1"
ONE = '[[models]]\nid = "a"\nsource = "path:/a"\nmemory = "10MiB"\n'


@pytest.fixture
async def fleet(tmp_path) -> AsyncIterator[Fleet]:
    async with running_fleet(document(tmp_path, ONE)) as started:
        yield started


@contextlib.asynccontextmanager
async def standing_by(leader: str) -> AsyncGenerator[str]:
    """A registry's own servicer, without a term."""
    holder = LeaderHolder[LeaderTerm]()
    holder.take(None, leader)
    server = Server(service_names=(), metrics=RpcMetrics(new_registry("registry"), "registry"))
    server.add(
        operator_grpc.add_OperatorServiceServicer_to_server,
        OperatorServicer(holder),
    )
    try:
        yield str(await server.start(LOOPBACK))
    finally:
        await server.stop(0)


# Whoever runs the tests may have been told to ignore Ctrl-C, which is inherited. A function that
# runs between fork and exec would do, were it not for gRPC's threads in here.
_COMMAND = """
import signal
from services.cli.__main__ import main

signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


async def started(*words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _COMMAND, *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "COLUMNS": "200"},
    )


async def said(*words: str) -> str:
    """What a command writes; it has to succeed."""
    process = await started(*words)
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


COMMANDS = (
    ("status",),
    ("models",),
    ("load", "a"),
    ("pin", "a"),
    ("unpin", "a"),
    ("cordon", "n"),
    ("uncordon", "n"),
    ("explain", "a"),
    ("reload",),
    ("unload", "a"),
    ("drain", "n"),
)


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_every_command_follows_a_standby_to_the_leader(fleet):
    await fleet.add(ScriptedNeuron("n"))
    async with standing_by(fleet.address) as standby:
        told = {words[0]: await said(*words, "--registry", standby) for words in COMMANDS}
        as_json = json.loads(await said("status", "--json", "--registry", standby))

    assert "ready" in told["status"]
    assert "not loaded" in told["models"]
    assert "is ready on n" in told["load"]
    assert "unloaded" in told["unload"]
    assert "drained and cordoned" in told["drain"]
    assert as_json["registry"]["role"] == "leader"


async def test_registries_are_tried_in_turn(fleet):
    async with standing_by("") as leaderless:
        answer = await ask(
            f"{NOBODY}, {leaderless},{fleet.address}", "ListModels", op.ListModelsRequest()
        )

    assert [one.model.model for one in answer.models] == ["a"]


async def test_a_leader_that_is_gone_is_asked_once():
    async with standing_by(NOBODY) as one, standing_by(NOBODY) as two:
        with pytest.raises(FleetError) as refused:
            await ask(f"{one},{two}", "ListModels", op.ListModelsRequest())

    assert refused.value.reason is Reason.NOT_LEADER
    assert NOBODY in refused.value.message


async def test_what_the_leader_refuses_is_not_asked_of_another(fleet):
    request = op.ExplainPlacementRequest(model="nonesuch")

    with pytest.raises(FleetError) as refused:
        await ask(f"{fleet.address},{NOBODY}", "ExplainPlacement", request)

    assert refused.value.reason is Reason.MODEL_UNKNOWN


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_ctrl_c_gives_a_load_up_down_to_the_neuron(fleet):
    neuron = ScriptedNeuron("n")
    neuron.script("a").gate.clear()
    await fleet.add(neuron)

    process = await started("load", "a", "--registry", fleet.address)
    await eventually(lambda: neuron.loads)
    process.send_signal(signal.SIGINT)
    output, _ = await process.communicate()

    await eventually(lambda: neuron.cancelled_loads == ["a"])
    assert process.returncode == 130
    assert "given up" in output.decode()


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_a_load_that_others_wait_for_goes_on_without_whoever_asked_first(fleet):
    neuron = ScriptedNeuron("n")
    script = neuron.script("a")
    script.gate.clear()
    await fleet.add(neuron)

    process = await started("load", "a", "--registry", fleet.address)
    await eventually(lambda: neuron.loads)
    client = asyncio.create_task(fleet.placed("a"))
    await eventually(lambda: _waiters(fleet, 2))
    process.send_signal(signal.SIGINT)
    await process.communicate()
    await eventually(lambda: _waiters(fleet, 1))
    script.gate.set()

    assert (await client).neuron == "n"
    assert not neuron.cancelled_loads


@pytest.mark.slow
@pytest.mark.timeout(60)
async def test_a_detached_load_goes_on(fleet):
    neuron = ScriptedNeuron("n")
    neuron.script("a").gate.clear()
    await fleet.add(neuron)

    await said("load", "a", "--detach", "--registry", fleet.address)
    await eventually(lambda: neuron.loads)
    neuron.script("a").gate.set()

    await eventually(lambda: neuron.loaded() == ["a"])


async def _waiters(fleet: Fleet, count: int) -> bool:
    answer = await fleet.operator.GetFleet(op.GetFleetRequest())
    return [one.waiters for one in answer.pending] == [count]

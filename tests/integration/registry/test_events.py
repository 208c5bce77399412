"""What the registry tells of what it has done and seen."""

from __future__ import annotations

import asyncio
import sys

from cortex.v1 import operator_service_pb2 as op
from tests.doubles.registry_neuron import ScriptedNeuron
from tests.doubles.registry_stand_ins import document, running_fleet
from tests.integration.registry.test_operators import collected
from tests.integration.registry.two_models import TWO


async def told(fleet, after=0):
    request = op.WatchEventsRequest(after=after)
    return [answer.event for answer in await collected(fleet.operator.WatchEvents(request))]


async def test_loads_unloads_cordons_and_neurons_are_told_in_order(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        one = ScriptedNeuron("one")
        await fleet.add(one)
        await collected(fleet.operator.LoadModel(op.LoadModelRequest(model="a")))
        await collected(fleet.operator.UnloadModel(op.UnloadModelRequest(model="a")))
        await fleet.operator.CordonNeuron(op.CordonNeuronRequest(neuron="one"))

        events = await told(fleet)

    kinds = [event.kind for event in events]
    assert [
        "neuron.attached",
        "load.ordered",
        "model.loaded",
        "unload.ordered",
        "model.unloaded",
        "neuron.cordoned",
    ] == kinds
    assert list(range(1, 7)) == [event.number for event in events]
    loaded = events[2]
    assert ("a", "one", True) == (loaded.model, loaded.neuron, loaded.HasField("elapsed"))
    assert events[3].detail.startswith("operator")


async def test_a_follower_is_told_of_what_comes_and_only_of_that(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        await fleet.add(ScriptedNeuron("one"))
        (first,) = await told(fleet)
        call = fleet.operator.WatchEvents(op.WatchEventsRequest(after=first.number, follow=True))
        await fleet.operator.PinModel(op.PinModelRequest(model="b"))

        async with asyncio.timeout(20):
            answer = await anext(aiter(call))

        call.cancel()
        assert ("model.pinned", "b") == (answer.event.kind, answer.event.model)


async def test_the_command_prints_a_line_for_each(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        await fleet.add(ScriptedNeuron("one"))
        await collected(fleet.operator.LoadModel(op.LoadModelRequest(model="a")))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "services.cli", "events", "--registry", fleet.address),
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(60):
            output, _ = await process.communicate()

    lines = output.decode().splitlines()
    assert 0 == process.returncode
    assert "neuron.attached" in lines[0]
    assert "model.loaded           a on one after" in lines[2]

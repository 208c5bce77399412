"""What a registry knows after a restart."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import pytest

from cortex.v1 import operator_service_pb2 as op
from tests.doubles.registry_neuron import MIB, ScriptedNeuron, eventually
from tests.doubles.registry_stand_ins import Fleet, document, running_fleet
from tests.integration.registry.two_models import TWO, neurons, pending


@pytest.mark.parametrize("is_dialled", [False, True], ids=["remembered", "named in the settings"])
async def test_a_restarted_registry_believes_its_neurons_and_loads_nothing_twice(
    tmp_path, is_dialled
):
    """Also where another one, with room for the model, is back before the one that has it."""
    one, other = ScriptedNeuron("one"), ScriptedNeuron("other")
    async with one.served(), other.served():
        both = (one, other)
        named = [{"name": n.name, "endpoint": n.address} for n in both if is_dialled]
        more = {"store": "sqlite::memory:"} if is_dialled else {}
        settings = document(tmp_path, TWO, neurons=named, settle_seconds=10.0, **more)
        attaching = () if is_dialled else both
        async with running_fleet(settings) as fleet, attached(fleet, *attaching):
            await fleet.until(lambda names: len(names) == 2)
            first = await fleet.placed("a")
        holder, free = both if first.neuron == "one" else (other, one)
        holder.speaks.clear()
        async with running_fleet(settings) as fleet, attached(fleet, *attaching):
            await fleet.until(lambda names: free.name in names)
            asking = asyncio.create_task(fleet.placed("a"))
            await eventually(lambda: pending(fleet, "waits for its neurons"))
            holder.speaks.set()

            again = await asking

        assert again.instance_id == first.instance_id
        assert [s.model for n in both for s in n.loads] == ["a"]


async def test_learned_footprints_pins_and_cordons_survive_a_restart(tmp_path):
    settings = document(tmp_path, TWO)
    neuron = ScriptedNeuron("one")
    neuron.script("a").bytes = 12 * MIB
    async with running_fleet(settings) as fleet:
        await fleet.add(neuron)
        await fleet.placed("a")
        await fleet.operator.PinModel(op.PinModelRequest(model="first"))
        await fleet.operator.CordonNeuron(op.CordonNeuronRequest(neuron="one"))
    async with running_fleet(settings) as fleet:
        await fleet.add(ScriptedNeuron("one"))

        explained = await fleet.operator.ExplainPlacement(op.ExplainPlacementRequest(model="a"))
        models = await fleet.operator.ListModels(op.ListModelsRequest())

        assert (explained.footprint_source, explained.required_bytes) == ("learned", 12 * MIB)
        assert (await neurons(fleet))["one"].cordoned
        assert {m.model.model: m.model.pinned for m in models.models} == {"a": True, "b": False}


@contextlib.asynccontextmanager
async def attached(fleet: Fleet, *neurons: ScriptedNeuron) -> AsyncGenerator[None]:
    """Lets neurons attach, and again whenever that ends, while the context is open."""
    tasks = [asyncio.create_task(neuron.attach(fleet.address)) for neuron in neurons]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

"""What gateways and operators are told of the fleet: WatchFleet and the list of models."""

from __future__ import annotations

import pytest

from cortex.v1 import model_pb2
from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import registry_service_pb2 as reg
from services.backplane.errors import FleetError, Reason
from tests.doubles.registry_neuron import ScriptedNeuron, eventually
from tests.doubles.registry_stand_ins import Fleet, document, running_fleet
from tests.integration.registry.two_models import TWO, neurons


async def test_watching_gives_a_snapshot_then_changes_and_resumes(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        await fleet.add(ScriptedNeuron("one"))
        first = await _first(fleet, reg.WatchFleetRequest())
        assert [n.identity.name for n in first.snapshot.neurons] == ["one"]
        assert [m.model for m in first.snapshot.catalogue.models] == ["a", "b"]
        await fleet.add(ScriptedNeuron("two"))

        resumed = await _until_named(
            fleet,
            reg.WatchFleetRequest(
                after_revision=first.revision,
                registry_incarnation_id=first.registry_incarnation_id,
            ),
            "two",
        )

        assert "snapshot" not in {c.WhichOneof("event") for c in resumed}
        revisions = [c.revision for c in resumed]
        assert revisions == sorted(revisions)
        assert revisions[0] > first.revision


@pytest.mark.parametrize("incarnation", ["another registry", ""], ids=["other", "none"])
async def test_a_revision_of_another_registry_gets_a_snapshot(tmp_path, incarnation):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        request = reg.WatchFleetRequest(after_revision=1, registry_incarnation_id=incarnation)

        first = await _first(fleet, request)

        assert first.WhichOneof("event") == "snapshot"


async def test_the_listing_is_the_union_of_catalogue_disk_and_loaded(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        neuron = ScriptedNeuron("one")
        neuron.stores("on-disk")
        await fleet.add(neuron)
        await fleet.placed("a")
        await fleet.heard(neuron)

        answer = await fleet.operator.ListModels(op.ListModelsRequest())

        models = {m.model.model: m for m in answer.models}
        assert sorted(models) == ["a", "b", "on-disk"]
        assert list(models["a"].model.aliases) == ["first"]
        assert models["a"].locations[0].instance.state == model_pb2.INSTANCE_STATE_READY
        assert models["a"].model.max_context_tokens == 2048
        assert list(models["a"].model.capabilities) == [model_pb2.CAPABILITY_CHAT]
        assert models["b"].locations == []
        assert list(models["b"].model.feasible_neurons) == ["one"]
        assert not models["on-disk"].model.configured
        assert not models["on-disk"].locations[0].HasField("instance")


async def test_a_state_that_nobody_knows_is_never_routed_to(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        one, two = ScriptedNeuron("one"), ScriptedNeuron("two")
        await fleet.add(one)
        await fleet.add(two)
        first = await fleet.placed("a")
        holder, other = (one, "two") if first.neuron == "one" else (two, "one")
        holder.state("a", 99)
        await fleet.heard(holder)

        assert (await fleet.placed("a")).neuron == other


async def test_loaded_but_not_servable_is_not_routed_to(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        one, two = ScriptedNeuron("one"), ScriptedNeuron("two")
        await fleet.add(one)
        await fleet.add(two)
        first = await fleet.placed("a")
        holder, other = (one, "two") if first.neuron == "one" else (two, "one")
        holder.instances[first.instance_id].servable = False
        holder.changed()
        await eventually(lambda: _is_unservable(fleet, holder.name))

        assert (await fleet.placed("a")).neuron == other


async def _is_unservable(fleet: Fleet, name: str) -> bool:
    return not (await neurons(fleet))[name].report.instances[0].servable


async def _first(fleet: Fleet, request: reg.WatchFleetRequest) -> reg.WatchFleetResponse:
    call = fleet.registry.WatchFleet(request)
    try:
        async for change in call:
            return change
    finally:
        call.cancel()
    raise FleetError(Reason.INTERNAL, "the watch ended")


async def _until_named(
    fleet: Fleet, request: reg.WatchFleetRequest, name: str
) -> list[reg.WatchFleetResponse]:
    changes: list[reg.WatchFleetResponse] = []
    call = fleet.registry.WatchFleet(request)
    try:
        async for change in call:
            changes.append(change)
            if change.neuron_changed.identity.name == name:
                return changes
    finally:
        call.cancel()
    return changes

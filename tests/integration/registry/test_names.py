"""One file by several names over real gRPC, against scripted neurons."""

from __future__ import annotations

import pytest

from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import registry_service_pb2 as reg
from cortex.v1 import storage_service_pb2 as storage
from services.backplane.errors import FleetError, Reason
from services.backplane.rpc.calls import streaming
from tests.doubles.registry_neuron import ScriptedNeuron, eventually
from tests.doubles.registry_stand_ins import Fleet, document, running_fleet


def with_files(name: str, preferred: str = "m:Q8_0") -> ScriptedNeuron:
    """A neuron that has two quantisations of a model, one of which it prefers."""
    neuron = ScriptedNeuron(name)
    for number, tag in enumerate(("m:Q4_K_M", "m:Q8_0"), start=4):
        for each in (tag, "m") if tag == preferred else (tag,):
            neuron.stores(each, number << 20, source=f"path:/{tag}")
    return neuron


async def models(fleet: Fleet) -> dict[str, list[str]]:
    answer = await fleet.operator.ListModels(op.ListModelsRequest())
    return {one.model.model: list(one.model.aliases) for one in answer.models}


async def remove(fleet: Fleet, name: str) -> None:
    request = storage.RemoveModelRequest(model=name)
    async with streaming(fleet.storage.RemoveModel(request)) as answers:
        async for _ in answers:
            pass


async def test_one_file_is_loaded_once_by_whichever_name(tmp_path):
    async with running_fleet(document(tmp_path)) as fleet:
        neuron = with_files("one")
        await fleet.add(neuron)
        assert {"m:Q4_K_M": [], "m:Q8_0": ["m"]} == await models(fleet)

        placed = [await fleet.placed(name) for name in ("m", "m:Q8_0", "m")]

        assert ["m:Q8_0"] == neuron.loaded()
        assert 1 == len({one.instance_id for one in placed})
        assert {"m:Q8_0"} == {one.model for one in placed}


async def test_an_operator_pins_unpins_and_unloads_by_any_name(tmp_path):
    async with running_fleet(document(tmp_path)) as fleet:
        neuron = with_files("one")
        await fleet.add(neuron)

        await fleet.operator.PinModel(op.PinModelRequest(model="m"))
        await eventually(lambda: neuron.loaded() == ["m:Q8_0"])
        await fleet.operator.UnpinModel(op.UnpinModelRequest(model="m:Q8_0"))
        async for _ in fleet.operator.UnloadModel(op.UnloadModelRequest(model="m")):
            pass

        assert [] == neuron.loaded()


async def test_what_a_name_means_is_the_same_in_all_of_the_fleet(tmp_path):
    async with running_fleet(document(tmp_path)) as fleet:
        small, large = with_files("small", "m:Q4_K_M"), with_files("large")
        await fleet.add(small)
        assert {"m:Q4_K_M": ["m"], "m:Q8_0": []} == await models(fleet)
        await fleet.add(large)
        assert {"m:Q4_K_M": [], "m:Q8_0": ["m"]} == await models(fleet)

        with pytest.raises(FleetError) as refused:
            await remove(fleet, "m")

        assert Reason.BAD_REQUEST is refused.value.reason
        assert "m is m:Q8_0 in the fleet, and not on small" in refused.value.message


async def test_gateways_are_told_the_names(tmp_path):
    async with running_fleet(document(tmp_path)) as fleet:
        await fleet.add(with_files("one"))

        async for change in fleet.registry.WatchFleet(reg.WatchFleetRequest()):
            listed = {m.model: list(m.aliases) for m in change.snapshot.catalogue.models}
            assert {"m:Q4_K_M": [], "m:Q8_0": ["m"]} == listed
            break

"""A neuron obeys the newest leadership that it has heard of, and no older one."""

from __future__ import annotations

import pathlib

import pytest

from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import Reason
from tests.doubles.neuron_host import NeuronHost, refusal, running_neuron


@pytest.fixture
async def host(tmp_path: pathlib.Path):
    async with running_neuron(tmp_path) as host:
        host.script("bravo")
        yield host


async def load(host: NeuronHost, epoch: int) -> None:
    request = neuron.LoadRequest(spec=model.LoadSpec(model="bravo"), leader_epoch=epoch)
    steps = [step async for step in host.stub.Load(request)]
    assert steps[-1].HasField("ready")


async def test_orders_of_a_deposed_registry_are_refused(host):
    await load(host, 7)

    stale = neuron.LoadRequest(spec=model.LoadSpec(model="bravo"), leader_epoch=6)
    loading = await refusal(host.stub.Load(stale))
    unloading = await refusal(host.stub.Unload(neuron.UnloadRequest(model="bravo", leader_epoch=6)))
    watching = await refusal(host.stub.WatchStatus(neuron.WatchStatusRequest(leader_epoch=6)))

    update = neuron.UpdateInstanceRequest(instance_id="x", leader_epoch=6)
    updating = await refusal(host.stub.UpdateInstance(update))

    assert {e.reason for e in (loading, unloading, watching, updating)} == {Reason.NOT_LEADER}
    await load(host, 7)


async def test_a_person_and_the_next_registry_are_obeyed(host):
    await load(host, 7)

    await load(host, 0)
    await load(host, 8)

    stale = neuron.LoadRequest(spec=model.LoadSpec(model="bravo"), leader_epoch=7)
    assert (await refusal(host.stub.Load(stale))).reason is Reason.NOT_LEADER

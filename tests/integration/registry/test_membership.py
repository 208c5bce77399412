"""Attach, leases and farewells over real gRPC."""

from __future__ import annotations

import asyncio

import grpc
import pytest

from cortex.v1 import model_pb2
from cortex.v1 import neuron_service_pb2 as neuron_pb
from cortex.v1 import registry_service_pb2 as reg
from services.backplane.errors import Reason
from services.backplane.rpc.channels import open_channel
from services.backplane.rpc.status import from_rpc_error
from tests.doubles.registry_neuron import MIB, ScriptedNeuron, eventually
from tests.doubles.registry_stand_ins import Fleet, document, running_fleet
from tests.integration.registry.two_models import TWO, neurons, pending


async def test_the_registry_grants_a_lease_and_lists_what_was_reported(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        neuron = ScriptedNeuron("one")
        neuron.labels = {"zone": "cellar"}
        await fleet.add(neuron)

        listed = (await neurons(fleet))["one"]

        assert neuron.leases[0].lease.ToSeconds() == 1
        assert dict(listed.identity.labels) == {"zone": "cellar"}
        assert listed.report.devices[0].memory_total_bytes == neuron.capacity


async def test_a_stream_that_ends_without_farewell_is_lost_at_once_and_still_listed(tmp_path):
    async with running_fleet(document(tmp_path, TWO, forget_seconds=60.0)) as fleet:
        task = await fleet.add(ScriptedNeuron("one"))
        task.cancel()

        await eventually(lambda: _is_lost(fleet, "one"))

        assert "one" in await neurons(fleet)


async def test_a_lost_neuron_is_forgotten_later(tmp_path):
    async with running_fleet(document(tmp_path, TWO, forget_seconds=0.2)) as fleet:
        task = await fleet.add(ScriptedNeuron("one"))
        task.cancel()

        await eventually(lambda: _is_gone(fleet, "one"))


async def test_a_silent_neuron_is_lost_when_its_lease_lapses_and_back_with_its_next_report(
    tmp_path,
):
    async with running_fleet(document(tmp_path, TWO, lease_seconds=0.3)) as fleet:
        channel = open_channel(fleet.address)
        stub = reg_stub(channel)
        call = stub.Attach()
        await call.write(_hello("half-open", "i1"))
        await call.write(_report(1))
        await fleet.until(lambda names: "half-open" in names)

        await eventually(lambda: _is_lost(fleet, "half-open"))
        await call.write(_report(2))

        await fleet.until(lambda names: "half-open" in names)
        call.cancel()
        await channel.close()


async def test_one_missed_beat_removes_nothing(tmp_path):
    async with running_fleet(document(tmp_path, TWO, lease_seconds=0.2)) as fleet:
        neuron = ScriptedNeuron("one")
        await fleet.add(neuron)
        await fleet.placed("a")
        channel, stub = _client(fleet)
        seen: list[reg.WatchFleetResponse] = []

        async def watch() -> None:
            async for change in stub.WatchFleet(reg.WatchFleetRequest()):
                seen.append(change)  # noqa: PERF401 - read while the stream goes on

        watching = asyncio.create_task(watch())
        await eventually(lambda: len(seen) > 0)
        await asyncio.sleep(0.5)  # two leases and more, with reports every 0.2 s

        assert not [c for c in seen if c.WhichOneof("event") == "neuron_removed"]
        watching.cancel()
        await channel.close()


async def test_farewell_removes_at_once(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        channel = open_channel(fleet.address)
        call = reg_stub(channel).Attach()
        await call.write(_hello("one", "i1"))
        await call.write(_report(1))
        await fleet.until(lambda names: "one" in names)

        await call.write(reg.AttachRequest(farewell=reg.NeuronFarewell()))

        await eventually(lambda: _is_gone(fleet, "one"))
        await channel.close()


async def test_an_older_stream_of_a_name_is_ended_and_clobbers_nothing(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        channel = open_channel(fleet.address)
        old, new = reg_stub(channel).Attach(), reg_stub(channel).Attach()
        await old.write(_hello("one", "i1"))
        await old.write(_report(5))
        await fleet.until(lambda names: "one" in names)
        await new.write(_hello("one", "i2"))
        await new.write(_report(1))
        await eventually(lambda: _incarnation_is(fleet, "one", "i2"))

        await old.write(_report(6))

        with pytest.raises(grpc.aio.AioRpcError) as ended:
            async for _ in old:
                pass
        assert from_rpc_error(ended.value).reason is Reason.FORBIDDEN
        assert await _incarnation_is(fleet, "one", "i2")
        assert not (await neurons(fleet))["one"].lost
        new.cancel()
        await channel.close()


async def test_a_second_host_with_the_same_name_is_refused(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        await fleet.add(ScriptedNeuron("one"))
        channel = open_channel(fleet.address)
        call = reg_stub(channel).Attach()
        await call.write(_hello("one", "other"))

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async for _ in call:
                pass

        assert "another name" in (refused.value.details() or "")
        await channel.close()


@pytest.mark.parametrize(
    "first",
    [
        reg.AttachRequest(farewell=reg.NeuronFarewell()),
        reg.AttachRequest(hello=neuron_pb.NeuronIdentity(name="x", address="y:1")),
    ],
    ids=["no hello", "no incarnation"],
)
async def test_a_bad_hello_is_refused(tmp_path, first):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        channel = open_channel(fleet.address)
        call = reg_stub(channel).Attach()
        await call.write(first)

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            async for _ in call:
                pass

        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        await channel.close()


async def test_a_neuron_that_is_dialled_serves_like_one_that_attached(tmp_path):
    neuron = ScriptedNeuron("cellar")
    async with neuron.served():
        entries = [{"name": "beast", "endpoint": f"http://{neuron.address}"}]
        async with running_fleet(document(tmp_path, TWO, neurons=entries)) as fleet:
            await fleet.until(lambda names: "beast" in names)

            placed = await fleet.placed("a")

            assert (placed.neuron, placed.address) == ("beast", neuron.address)


async def test_a_neuron_that_dies_under_a_load_has_it_placed_elsewhere(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        one, two = ScriptedNeuron("one"), ScriptedNeuron("two", capacity=24 * MIB)
        dying = await fleet.add(one)
        await fleet.add(two)
        one.script("a").gate.clear()
        waiting = asyncio.create_task(fleet.placed("a"))
        await eventually(lambda: one.loads)

        dying.cancel()

        assert (await waiting).neuron == "two"


async def test_recovering_blocks_a_second_placement_until_it_is_back(tmp_path):
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        one, two = ScriptedNeuron("one"), ScriptedNeuron("two")
        await fleet.add(one)
        await fleet.add(two)
        first = await fleet.placed("a")
        holder = one if first.neuron == "one" else two
        holder.state("a", model_pb2.INSTANCE_STATE_RECOVERING)
        await fleet.heard(holder)
        waiting = asyncio.create_task(fleet.ensure("a"))
        await eventually(lambda: pending(fleet, "recovering"))

        holder.state("a", model_pb2.INSTANCE_STATE_READY)

        steps = await waiting
        assert steps[-1].placed.instance_id == first.instance_id
        assert len(one.loads) + len(two.loads) == 1


def reg_stub(channel: grpc.aio.Channel):
    from cortex.v1 import registry_service_pb2_grpc

    return registry_service_pb2_grpc.RegistryServiceStub(channel)


def _client(fleet: Fleet):
    channel = open_channel(fleet.address)
    return channel, reg_stub(channel)


def _hello(name: str, incarnation: str) -> reg.AttachRequest:
    identity = neuron_pb.NeuronIdentity(
        name=name, incarnation_id=incarnation, address="127.0.0.1:1"
    )
    return reg.AttachRequest(hello=identity)


def _report(sequence: int) -> reg.AttachRequest:
    device = model_pb2.Device(device_id="cpu", kind=model_pb2.DEVICE_KIND_CPU)
    return reg.AttachRequest(report=neuron_pb.NeuronReport(sequence=sequence, devices=[device]))


async def _is_lost(fleet: Fleet, name: str) -> bool:
    found = (await neurons(fleet)).get(name)
    return found is not None and found.lost


async def _is_gone(fleet: Fleet, name: str) -> bool:
    return name not in await neurons(fleet)


async def _incarnation_is(fleet: Fleet, name: str, incarnation: str) -> bool:
    found = (await neurons(fleet)).get(name)
    return found is not None and found.identity.incarnation_id == incarnation

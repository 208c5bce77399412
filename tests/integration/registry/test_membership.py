"""Attach, leases, WatchFleet and restarts over real gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import grpc
import pytest

from cortex.v1 import model_pb2
from cortex.v1 import neuron_service_pb2 as neuron_pb
from cortex.v1 import operator_service_pb2 as op
from cortex.v1 import registry_service_pb2 as reg
from services.backplane.errors import FleetError, Reason
from services.backplane.rpc.channels import open_channel
from services.backplane.rpc.status import from_rpc_error
from tests.doubles.registry_stand_ins import (
    LOOPBACK,
    MIB,
    Fleet,
    ScriptedNeuron,
    document,
    eventually,
    running_fleet,
)

TWO = """
[[models]]
id = "a"
source = "path:/a"
memory = "10MiB"
aliases = ["first"]
[[models]]
id = "b"
source = "path:/b"
memory = "10MiB"
"""


async def neurons(fleet: Fleet) -> dict[str, reg.Neuron]:
    answer = await fleet.operator.GetFleet(op.GetFleetRequest())
    return {n.identity.name: n for n in answer.neurons}


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


async def test_a_neuron_that_is_dialled_serves_like_one_that_attached(tmp_path):
    neuron = ScriptedNeuron("cellar")
    async with neuron.served():
        entries = [{"name": "beast", "endpoint": f"http://{neuron.address}"}]
        async with running_fleet(document(tmp_path, TWO, neurons=entries)) as fleet:
            await fleet.until(lambda names: "beast" in names)

            placed = await fleet.placed("a")

            assert (placed.neuron, placed.address) == ("beast", neuron.address)


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
            await eventually(lambda: _pending(fleet, "waits for its neurons"))
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
        await eventually(lambda: _pending(fleet, "recovering"))

        holder.state("a", model_pb2.INSTANCE_STATE_READY)

        steps = await waiting
        assert steps[-1].placed.instance_id == first.instance_id
        assert len(one.loads) + len(two.loads) == 1


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


async def test_a_port_in_use_and_a_bad_catalogue_are_said_in_one_sentence(tmp_path):
    from services.backplane.address import PortTakenError
    from services.backplane.settings import SettingsError
    from services.registry.wire import running

    settings = document(tmp_path, TWO)
    async with running(settings, listen=LOOPBACK) as address:
        with pytest.raises(PortTakenError, match="in use"):
            async with running(settings, listen=address):
                pass
    (tmp_path / "models.toml").write_text('[[models]]\nid = "a"\nmemory = "lots"\n')
    with pytest.raises(SettingsError, match=r"models\.toml: models\[0\]\.memory: 'lots'"):
        async with running(settings, listen=LOOPBACK):
            pass


async def test_health_and_reflection_name_both_services(tmp_path):
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

    async with running_fleet(document(tmp_path, TWO)) as fleet:
        channel = open_channel(fleet.address)
        health = health_pb2_grpc.HealthStub(channel)
        answer = await health.Check(
            health_pb2.HealthCheckRequest(service="cortex.v1.OperatorService")
        )
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        call = reflection.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        )
        async for listed in call:
            names = {s.name for s in listed.list_services_response.service}
            assert {"cortex.v1.RegistryService", "cortex.v1.OperatorService"} <= names
        await channel.close()


# -- what the tests above ask ---------------------------------------------------------------------


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


async def _is_unservable(fleet: Fleet, name: str) -> bool:
    return not (await neurons(fleet))[name].report.instances[0].servable


async def _incarnation_is(fleet: Fleet, name: str, incarnation: str) -> bool:
    found = (await neurons(fleet)).get(name)
    return found is not None and found.identity.incarnation_id == incarnation


async def _pending(fleet: Fleet, word: str) -> bool:
    answer = await fleet.operator.GetFleet(op.GetFleetRequest())
    return any(word in p.step.queued.reason for p in answer.pending)


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


async def neuron_detached(fleet: Fleet) -> None:
    """Lets the store's background writes settle with one more answer."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        await fleet.operator.GetFleet(op.GetFleetRequest())


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

"""An exception that nobody foresaw ends one item of work; a loop that ends ends the registry."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cortex.v1 import registry_service_pb2 as reg
from services.backplane.errors import FleetError, Reason
from services.backplane.process import faults as faults_module
from services.backplane.process.lifecycle import EX_SOFTWARE, Shutdown
from services.backplane.rpc.channels import open_channel
from services.registry import term as term_module
from services.registry.control.control_plane import ControlPlane
from services.registry.rpc import decode, encode, neuron_dialer
from services.registry.rpc.neuron_calls import NeuronCalls
from services.registry.store.write_behind import FactWriter
from services.registry.term import LeaderTerm
from services.registry.wire import serve
from tests.doubles.registry_neuron import LOOPBACK, ScriptedNeuron, eventually
from tests.doubles.registry_stand_ins import Fleet, document, running_fleet

TWO = """
[[models]]
id = "good"
source = "path:/good"
memory = "10MiB"
[[models]]
id = "bad"
source = "path:/bad"
memory = "10MiB"
"""


def plant(
    monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, concerns: Callable[[Any], bool]
) -> None:
    """Lets a function raise where one of its arguments is the bad one."""
    honest = getattr(owner, name)

    def defective(*args: Any, **more: Any) -> Any:
        if any(concerns(a) for a in args):
            raise RuntimeError("planted")
        return honest(*args, **more)

    monkeypatch.setattr(owner, name, defective)


@pytest.fixture
def noted(monkeypatch) -> list[str]:
    """The places where exceptions were contained."""
    places: list[str] = []
    honest = faults_module.Faults.note_remote

    def note(self: Any, place: str, trace: str, **facts: object) -> None:
        places.append(place)
        honest(self, place, trace, **facts)

    monkeypatch.setattr(faults_module.Faults, "note_remote", note)
    return places


async def watched(fleet: Fleet) -> set[str]:
    """The names of the neurons in a fresh snapshot."""
    call = fleet.registry.WatchFleet(reg.WatchFleetRequest())
    try:
        async for change in call:
            return {n.identity.name for n in change.snapshot.neurons}
    finally:
        call.cancel()
    return set()


async def test_a_report_that_cannot_be_taken_in_disturbs_no_other_neuron(
    tmp_path, monkeypatch, noted
):
    honest = decode.report

    def defective(message: Any) -> Any:
        if message.stored_models and message.stored_models[0].model == "poison":
            raise RuntimeError("planted")
        return honest(message)

    monkeypatch.setattr(decode, "report", defective)
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        good, bad = ScriptedNeuron("good"), ScriptedNeuron("bad")
        await fleet.add(good)
        await fleet.add(bad)
        bad.stores("poison")
        await eventually(lambda: "reports" in noted)

        assert (await fleet.placed("good")).model == "good"
        await fleet.until(lambda names: names == {"good"})  # the other's lease has run out


async def test_a_member_that_cannot_be_told_of_leaves_the_others_in_every_watch(
    tmp_path, monkeypatch, noted
):
    plant(monkeypatch, encode, "neuron_message", lambda a: getattr(a, "name", "") == "bad")
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        await fleet.add_unseen(ScriptedNeuron("bad"))
        await fleet.add_unseen(ScriptedNeuron("good"))

        async def sees_good() -> bool:
            # the other may join behind it
            return await watched(fleet) == {"good"} and "fleet-watch" in noted

        await eventually(sees_good)


async def test_an_end_of_a_load_that_cannot_be_taken_in_fails_that_load_alone(
    tmp_path, monkeypatch, noted
):
    plant(monkeypatch, ControlPlane, "on_load_ready", lambda a: getattr(a, "model", "") == "bad")
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        await fleet.add(ScriptedNeuron("one"))
        bad = asyncio.create_task(fleet.ensure("bad"))

        assert (await fleet.placed("good")).model == "good"
        try:
            await bad  # the neuron's own report may have told that it is loaded
        except FleetError as failed:
            assert failed.reason is Reason.INTERNAL  # noqa: PT017 - it need not be raised
        await eventually(lambda: "load" in noted)


async def test_a_neuron_that_cannot_be_dialled_for_a_defect_keeps_nobody_else_away(
    tmp_path, monkeypatch, noted
):
    plant(monkeypatch, neuron_dialer, "_watch", lambda a: a == "bad")
    good, bad = ScriptedNeuron("good"), ScriptedNeuron("bad")
    async with good.served(), bad.served():
        entries = [{"name": n.name, "endpoint": n.address} for n in (bad, good)]
        async with running_fleet(document(tmp_path, TWO, neurons=entries)) as fleet:
            await fleet.until(lambda names: names == {"good"})

            assert (await fleet.placed("good")).model == "good"
            assert "dialling" in noted


async def test_a_look_that_raises_is_made_again(tmp_path, monkeypatch, noted):
    honest = ControlPlane.advance
    left = [1]

    def once(self: ControlPlane) -> None:
        if left:
            left.pop()
            raise RuntimeError("planted")
        honest(self)

    monkeypatch.setattr(ControlPlane, "advance", once)
    async with running_fleet(document(tmp_path, TWO)) as fleet:
        await fleet.add(ScriptedNeuron("one"))

        assert (await fleet.placed("good")).model == "good"
        assert noted == ["control"]


async def _ends(*_: Any) -> None:
    await asyncio.sleep(0.2)


async def _raises(*_: Any) -> None:
    await asyncio.sleep(0.2)
    raise RuntimeError("planted")


@pytest.mark.parametrize("end", [_ends, _raises], ids=["returns", "raises"])
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (LeaderTerm, "_drive"),
        (NeuronCalls, "run"),
        (FactWriter, "_write_for_ever"),
        (term_module, "keep_dialling"),
    ],
    ids=["control", "orders", "facts", "dialling"],
)
async def test_a_loop_that_ends_by_itself_ends_the_registry(
    tmp_path, monkeypatch, owner, name, end
):
    monkeypatch.setattr(owner, name, end)
    entries = [{"name": "one", "endpoint": "127.0.0.1:1"}]
    settings = document(tmp_path, TWO, neurons=entries)

    async with asyncio.timeout(60):
        code = await serve(settings, Shutdown(), listen=LOOPBACK)

    assert code == EX_SOFTWARE


async def test_health_says_at_once_that_a_registry_cannot_go_on(tmp_path, monkeypatch):
    """Even where its end takes its time."""
    gate = asyncio.Event()
    monkeypatch.setattr(NeuronCalls, "run", lambda _: _raises())

    async def slow(*_: Any) -> None:
        await gate.wait()

    monkeypatch.setattr(NeuronCalls, "close", slow)
    ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve(document(tmp_path, TWO), Shutdown(), listen=LOOPBACK, started=ready.set_result)
    )
    channel = open_channel(str(await ready))
    stub: Any = health_pb2_grpc.HealthStub(channel)

    async def is_down() -> bool:
        answer = await stub.Check(health_pb2.HealthCheckRequest())
        return answer.status == health_pb2.HealthCheckResponse.NOT_SERVING

    await eventually(is_down, 1.5)
    gate.set()
    assert await serving == EX_SOFTWARE
    await channel.close()

"""What nobody foresaw: it ends the one request that it came from, and is logged and counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.gateway.api.request import RequestScope
from services.gateway.dialects.openai_chat.stream import ChatProjector
from services.gateway.routing.fleet_view import FleetView
from services.gateway.streaming.stream_sink import StreamSink
from services.gateway.telemetry.metrics import GatewayMetrics
from services.gateway.telemetry.request_log import BufferedLog
from services.gateway.transports import pool
from services.gateway.transports.grpc_call import BidiCall
from services.gateway.transports.pool import NeuronLinks
from services.gateway.transports.session_outbox import SessionOutbox
from tests.doubles.scripted_neuron import Script, text
from tests.integration.gateway.fleet import Fleet, chat_body, contents

# Where each of the loops calls something: the place that counts it, and what is made to raise.
UPKEEP = [
    ("fleet-watch", FleetView, "apply"),
    ("members", FleetView, "expire"),
    ("members", NeuronLinks, "keep_only"),
    ("settling", BufferedLog, "drain"),
    ("settling", GatewayMetrics, "settle"),
]
# Each raises in the service of one request, while another one's stream is open.
REQUESTS = [
    ("neuron-session", StreamSink, "text"),
    ("neuron-session", StreamSink, "event"),
    ("neuron-session", StreamSink, "flush"),
    ("neuron-session", StreamSink, "finished"),
    ("neuron-session", SessionOutbox, "take"),
    ("ticker", RequestScope, "tick"),
    ("neuron-session", ChatProjector, "open"),
    ("request", NeuronLinks, "to"),
]


class PlantedError(Exception):
    pass


class Once:
    """Makes one call of a method raise: the first after `arm`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> None:
        original = getattr(owner, name)
        self.armed = False
        self.raised = asyncio.Event()

        def planted(*args: Any, **kwargs: Any) -> Any:
            if self.armed and self.wanted(*args):
                self.armed = False
                self.raised.set()
                raise PlantedError
            return original(*args, **kwargs)

        self.wanted: Callable[..., bool] = lambda *_: True
        monkeypatch.setattr(owner, name, planted)


def faults_at(fleet: Fleet, place: str) -> float:
    value = fleet.gateway.registry.get_sample_value(
        "cortex_gateway_unforeseen_errors_total", {"place": place}
    )
    return value or 0.0


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("place", "owner", "name"), UPKEEP)
async def test_a_loop_goes_on_behind_an_exception(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, place: str, owner: Any, name: str
) -> None:
    gate = asyncio.Event()
    await fleet.add_neuron("n1", Script([text("a"), text("b")], gate=gate), Script())
    planted = Once(monkeypatch, owner, name)
    async with fleet.streamed() as bystander:
        with capture_logs() as logged:
            planted.armed = True
            if name == "apply":
                fleet.registry.put(fleet.neurons[0].described())
            if name == "keep_only":
                fleet.gateway._links._members = {"127.0.0.1:1"}
            async with asyncio.timeout(60):
                await planted.raised.wait()
            await until(lambda: faults_at(fleet, place) == 1)
        gate.set()
        told = (await bystander.aread()).decode()

    assert contents(told) == ["a", "b"]
    assert [one["place"] for one in logged if one["event"] == "fault.contained"] == [place]
    assert all("exc_info" in one for one in logged if one["event"] == "fault.contained")
    await until(lambda: fleet.gateway.readiness.problem() is None)
    await fleet.announce(fleet.neurons[0])  # the view is kept fresh again
    assert (await fleet.chat()).status_code == 200


@pytest.mark.parametrize(("place", "owner", "name"), REQUESTS)
async def test_an_exception_ends_the_one_request_that_it_came_from(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, place: str, owner: Any, name: str
) -> None:
    gate = asyncio.Event()
    slow = Script([text("c"), text("d")], gap=0.4)
    await fleet.add_neuron("n1", Script([text("a"), text("b")], gate=gate), slow, Script())
    planted = Once(monkeypatch, owner, name)
    if owner is RequestScope:
        planted.wanted = lambda scope, *_: scope.record.request_id == "victim"
    async with fleet.streamed() as bystander:
        lines = bystander.aiter_lines()
        told = [await anext(lines) for _ in range(3)]  # up to its first token
        planted.armed = True
        victim = await fleet.client.post(
            "/v1/chat/completions",
            json=chat_body(stream=True),
            headers={"x-request-id": "victim"},
        )
        gate.set()
        told += [line async for line in lines]

    assert planted.raised.is_set()
    assert victim.status_code == 500 or '"error"' in victim.text
    assert contents("\n".join(told)) == ["a", "b"]
    assert faults_at(fleet, place) == 1
    assert (await fleet.chat()).status_code == 200
    assert fleet.gateway.readiness.problem() is None


async def test_a_session_that_cannot_be_read_ends_what_ran_on_it_and_is_opened_again(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fleet.add_neuron("n1")
    await fleet.add_neuron("n2")
    planted = Once(monkeypatch, BidiCall, "_take")
    planted.armed = True

    answer = await fleet.chat()  # another attempt serves it

    assert answer.status_code == 200
    assert faults_at(fleet, "neuron-session") == 1


async def test_a_session_that_cannot_be_opened_lets_nobody_wait(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fleet.add_neuron("n1")
    planted = Once(monkeypatch, pool, "open_call")
    planted.armed = True

    answer = await fleet.chat()

    assert answer.status_code == 500
    assert (await fleet.chat()).status_code == 200


async def test_a_call_of_its_own_that_a_sink_breaks_ends_alone(
    bare: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bare.start(transport="generate")
    await bare.add_neuron("n1")
    planted = Once(monkeypatch, StreamSink, "text")
    planted.armed = True

    assert "its log says why" in await bare.stream_text()
    assert faults_at(bare, "neuron-call") == 1
    assert contents(await bare.stream_text()) != []


@pytest.mark.parametrize("name", ["fleet-watch", "ticker", "members", "settling"])
async def test_a_loop_that_ends_by_itself_ends_readiness_and_then_the_process(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    gate = asyncio.Event()
    await fleet.add_neuron("n1", Script([text("a"), text("b")], gate=gate))
    async with fleet.streamed() as bystander:
        if name == "fleet-watch":  # which survives all but a failure of its own handler
            for method in ("apply", "distrust"):
                Once(monkeypatch, FleetView, method).armed = True
            fleet.registry.put(fleet.neurons[0].described())
        else:
            task = next(one for one in asyncio.all_tasks() if one.get_name() == name)
            task.cancel()
            task.uncancel()  # an end that nobody asked for

        await until(lambda: fleet.gateway.readiness.problem() is not None)
        gate.set()
        told = (await bystander.aread()).decode()

    assert contents(told) == ["a", "b"]
    await fleet.ended()
    assert fleet.gateway.faults.broken.is_set()

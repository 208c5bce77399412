"""One suite that every transport passes, against a real NeuronService."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Literal

import grpc
import pytest
from prometheus_client import CollectorRegistry

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.backplane.rpc.channels import ChannelPool
from services.gateway.transports.pool import LARGE_REQUEST_BYTES, NeuronLink
from services.gateway.transports.transport import NeuronSequence
from tests.doubles.scripted_neuron import (
    Event,
    Script,
    ScriptedNeuron,
    queued,
    reasoning,
    text,
    tool_call,
)

WINDOW = 8


def faults() -> Faults:
    return Faults(CollectorRegistry(), "test")


class Recorder:
    """A sink that keeps what it hears, in order; deltas of one flush stay together."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.flushes = 0
        self.end: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        self.news = asyncio.Event()

    def text(self, text: str, tokens: int, token_ids: Sequence[int] = ()) -> None:
        self.heard.append((text, tokens))
        self.news.set()

    def event(self, event: generation.GenerateResponse) -> None:
        self.heard.append(event.WhichOneof("event"))
        self.news.set()

    def flush(self) -> None:
        self.flushes += 1

    def finished(self, finished: generation.GenerationFinished) -> None:
        self.end.set_result(finished)

    def failed(self, error: FleetError) -> None:
        self.end.set_result(error)

    async def ended(self) -> object:
        async with asyncio.timeout(60):
            return await self.end

    async def failure(self) -> FleetError:
        end = await self.ended()
        assert isinstance(end, FleetError)
        return end

    async def until_heard(self, count: int) -> None:
        async with asyncio.timeout(60):
            while len(self.heard) < count:
                self.news.clear()
                await self.news.wait()


class Rig:
    def __init__(self, kind: Literal["session", "generate"], channels: ChannelPool) -> None:
        self.kind = kind
        self.channels = channels
        self.neuron = ScriptedNeuron("n1")
        self.link: NeuronLink

    def start(self, *scripts: Script, prompt: str = "Hi") -> tuple[Recorder, NeuronSequence]:
        if scripts:
            self.neuron.scripts = list(scripts)
        request = generation.GenerateRequest(request_id="r", model="tiny", text=prompt)
        sink = Recorder()
        return sink, self.link.start(request, sink)


@pytest.fixture(params=["session", "generate"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    channels = ChannelPool()
    rig = Rig(request.param, channels)
    await rig.neuron.start()
    rig.link = NeuronLink(
        channels, rig.neuron.address, kind=request.param, window_tokens=WINDOW, faults=faults()
    )
    yield rig
    await rig.link.close()
    await channels.close()
    await rig.neuron.stop()


async def test_events_come_in_order_and_the_end_last(rig: Rig) -> None:
    events = [queued(2), reasoning("hm"), text("a"), text("b"), tool_call(0, "{}", name="f")]
    sink, _ = rig.start(Script(events))

    end = await sink.ended()

    kinds = ["started", "queued", "reasoning", "text", "text", "tool_call"]
    assert [item if isinstance(item, str) else "text" for item in sink.heard] == kinds
    assert isinstance(end, generation.GenerationFinished)
    assert end.usage.completion_tokens == len(events)


async def test_deltas_of_a_generation_that_goes_on_are_flushed(rig: Rig) -> None:
    sink, sequence = rig.start(Script([text("a"), text("b")], gate=asyncio.Event()))

    await sink.until_heard(2)

    assert sink.flushes > 0
    sequence.cancel()


async def test_text_with_logprobs_comes_as_an_event(rig: Rig) -> None:
    delta = text("a")
    delta.text.logprobs.add(token_id=1, logprob=-0.5)
    sink, _ = rig.start(Script([delta]))

    await sink.ended()

    assert sink.heard == ["started", "text"]


async def test_a_failure_keeps_its_reason_and_its_details(rig: Rig) -> None:
    error = FleetError(
        Reason.QUEUE_FULL, "Full.", retry_after_seconds=2, facts={"queued_requests": "8"}
    )
    sink, _ = rig.start(Script(refuse=error))

    failure = await sink.failure()

    assert failure.reason is Reason.QUEUE_FULL
    assert failure.message == "Full."
    assert failure.retry_after_seconds == 2
    assert failure.facts == {"queued_requests": "8"}


async def test_a_failure_of_one_leaves_the_others_alone(rig: Rig) -> None:
    gate = asyncio.Event()
    rig.neuron.scripts = [Script([text("a"), text("b")], gate=gate), Script(fail_after=1)]
    good, _ = rig.start()
    await good.until_heard(2)
    bad, _ = rig.start()
    await bad.failure()
    gate.set()

    assert isinstance(await good.ended(), generation.GenerationFinished)


async def test_cancelling_reaches_the_neuron_and_silences_the_sink(rig: Rig) -> None:
    sink, sequence = rig.start(Script([text("a"), text("b")], gate=asyncio.Event()))
    await sink.until_heard(2)

    sequence.cancel()
    sequence.cancel()

    await rig.neuron.until(lambda: rig.neuron.cancelled == ["r"])
    assert not sink.end.done()


async def test_cancelling_before_the_start_left_is_possible(rig: Rig) -> None:
    _, sequence = rig.start()
    sequence.cancel()

    sink, _ = rig.start()

    assert isinstance(await sink.ended(), generation.GenerationFinished)
    assert len(rig.neuron.requests) <= 2


async def test_without_credit_a_sequence_stands_still(rig: Rig) -> None:
    """Of a call of its own, gRPC's window may hold more; the sink hears no more than its credit."""
    sink, sequence = rig.start(Script([text("x")] * 100))
    await sink.until_heard(1 + WINDOW)
    other, _ = rig.start(Script())
    await other.ended()

    assert len(sink.heard) == 1 + WINDOW
    sequence.credit(1000)
    assert isinstance(await sink.ended(), generation.GenerationFinished)
    assert len(sink.heard) == 1 + 100


async def test_a_neuron_that_dies_fails_all_that_ran_there(rig: Rig) -> None:
    gate = asyncio.Event()
    rig.neuron.scripts = [Script([text("a"), text("b")], gate=gate), Script(die_after=1)]
    first, _ = rig.start()
    await first.until_heard(2)
    second, _ = rig.start()

    assert (await first.failure()).reason is Reason.NEURON_LOST
    assert (await second.failure()).reason is Reason.NEURON_LOST


async def test_a_neuron_that_is_not_there_is_lost(rig: Rig) -> None:
    await rig.neuron.stop()
    sink, _ = rig.start()

    assert (await sink.failure()).reason is Reason.NEURON_LOST


async def test_a_neuron_that_came_back_is_used_again(rig: Rig) -> None:
    sink, _ = rig.start()
    await sink.ended()
    address = rig.neuron.address
    await rig.neuron.stop()
    lost, _ = rig.start()
    assert (await lost.failure()).reason is Reason.NEURON_LOST
    await rig.neuron.start(address)

    async with asyncio.timeout(60):
        while True:
            again, _ = rig.start()
            end = await again.ended()
            if isinstance(end, generation.GenerationFinished):
                break


async def test_closing_ends_what_runs(rig: Rig) -> None:
    sink, _ = rig.start(Script(silent=True))
    await rig.neuron.until(lambda: rig.neuron.active == 1)

    await rig.link.close()

    assert (await sink.failure()).reason is Reason.NEURON_LOST
    await rig.neuron.until(lambda: rig.neuron.active == 0)


async def test_a_failing_sink_ends_its_own_generation_and_no_other(rig: Rig) -> None:
    class Broken(Recorder):
        def event(self, event: Event) -> None:
            raise ZeroDivisionError

    gate = asyncio.Event()
    rig.neuron.scripts = [Script([text("a"), text("b")], gate=gate), Script()]
    good, _ = rig.start()
    await good.until_heard(2)
    broken = Broken()
    rig.link.start(generation.GenerateRequest(request_id="b", model="tiny", text="x"), broken)

    assert (await broken.failure()).reason is Reason.INTERNAL
    gate.set()
    assert isinstance(await good.ended(), generation.GenerationFinished)


async def test_a_large_request_does_not_travel_on_the_shared_stream(rig: Rig) -> None:
    sink, _ = rig.start(prompt="x" * (LARGE_REQUEST_BYTES + 1))

    assert isinstance(await sink.ended(), generation.GenerationFinished)
    assert rig.neuron.sessions == 0


async def test_a_stub_is_made_once_per_channel(rig: Rig) -> None:
    stub = rig.link.stub
    assert rig.link.stub is stub

    await rig.channels.discard(rig.neuron.address)
    assert rig.link.stub is not stub
    sink, _ = rig.start(prompt="x" * (LARGE_REQUEST_BYTES + 1))
    assert isinstance(await sink.ended(), generation.GenerationFinished)


async def test_requests_that_wait_leave_as_one_message() -> None:
    channels = ChannelPool()
    rig = Rig("session", channels)
    await rig.neuron.start()
    rig.link = NeuronLink(
        channels, rig.neuron.address, kind="session", window_tokens=WINDOW, faults=faults()
    )
    try:
        sinks = [rig.start()[0] for _ in range(50)]
        for sink in sinks:
            await sink.ended()
    finally:
        await rig.link.close()
        await channels.close()
        await rig.neuron.stop()

    assert rig.neuron.sessions == 1
    assert rig.neuron.messages_in <= 3


async def test_a_neuron_that_does_not_know_session_is_met_with_plain_calls() -> None:
    class Plain(ScriptedNeuron):
        async def Session(self, request_iterator, context):  # type: ignore[override] # never yields
            self.sessions += 1
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")

    channels = ChannelPool()
    neuron = Plain("n1")
    await neuron.start()
    link = NeuronLink(
        channels, neuron.address, kind="session", window_tokens=WINDOW, faults=faults()
    )
    try:
        request = generation.GenerateRequest(request_id="r", model="tiny", text="Hi")
        for _ in range(2):
            sinks = [Recorder() for _ in range(3)]
            for sink in sinks:
                link.start(request, sink)
            for sink in sinks:
                assert isinstance(await sink.ended(), generation.GenerationFinished)

        neuron.scripts = [Script([text("a"), text("b")], gate=asyncio.Event())]
        last = Recorder()
        sequence = link.start(request, last)
        await last.until_heard(2)
        sequence.cancel()
        await neuron.until(lambda: neuron.cancelled)
    finally:
        await link.close()
        await channels.close()
        await neuron.stop()

    assert neuron.sessions == 1
    assert len(neuron.requests) == 7

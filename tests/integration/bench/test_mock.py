"""The benchmark's mock keeps the contract, or its figures would be of something else."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import grpc
import pytest

from bench.load import LoadGenerator
from bench.processes import Process, ending
from bench.stub_registry import INSTANCE, MODEL, serve
from bench.targets import Mock, start_mock
from bench.workloads import WORKLOADS
from cortex.v1 import (
    generation_pb2,
    model_pb2,
    neuron_service_pb2,
    neuron_service_pb2_grpc,
    registry_service_pb2,
    registry_service_pb2_grpc,
)
from tests.doubles.processes import free_port

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")


@pytest.fixture(scope="module")
def mock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mock]:
    def starting(process: Process) -> Process:
        processes.append(process)
        return process

    with ending([]) as processes:
        yield start_mock(tmp_path_factory.mktemp("bench"), starting)


@pytest.fixture
async def neuron(mock: Mock) -> AsyncIterator[Any]:
    async with (
        asyncio.timeout(60),
        grpc.aio.insecure_channel(f"127.0.0.1:{mock.grpc_port}") as channel,
    ):
        yield neuron_service_pb2_grpc.NeuronServiceStub(channel)


def request(tokens: int, mode: str = "n ") -> generation_pb2.GenerateRequest:
    return generation_pb2.GenerateRequest(
        request_id="r",
        model=MODEL,
        text=f"MODE={mode} hello",
        stop=generation_pb2.StopRules(max_tokens=tokens),
    )


def start(number: int, tokens: int, *, mode: str = "n ", credit: int = 1000):
    return neuron_service_pb2.SessionStart(
        sequence_id=number, request=request(tokens, mode), credit_tokens=credit
    )


async def test_generate_keeps_the_grammar_of_a_stream(neuron) -> None:
    events = [event async for event in neuron.Generate(request(3, "p "))]

    # On a busy machine two tokens may fall due before the mock gets to write.
    kinds = [event.WhichOneof("event") for event in events]
    assert (kinds[0], set(kinds[1:-1]), kinds[-1]) == ("started", {"text"}, "finished")
    assert events[0].started.instance_id == INSTANCE
    assert "".join(event.text.text for event in events) == " tok" * 3
    assert events[-1].finished.reason == generation_pb2.FINISH_REASON_MAX_TOKENS
    assert events[-1].finished.usage.completion_tokens == 3


async def test_a_session_answers_all_that_starts_together_in_one_message(neuron) -> None:
    call = neuron.Session()
    starts = [start(number, 16) for number in range(1, 9)]
    await call.write(neuron_service_pb2.SessionRequest(starts=starts))

    answer = await call.read()

    assert sorted(event.sequence_id for event in answer.events) == list(range(1, 9))
    assert all(event.event.HasField("started") for event in answer.events)
    assert sorted(answer.text_sequence_ids) == list(range(1, 9))
    assert list(answer.texts) == [" tok" * 16] * 8
    assert list(answer.text_token_counts) == [16] * 8
    assert sorted(end.sequence_id for end in answer.ends) == list(range(1, 9))
    call.cancel()


async def test_a_sequence_waits_for_credit(neuron) -> None:
    call = neuron.Session()
    await call.write(neuron_service_pb2.SessionRequest(starts=[start(1, 16, credit=10)]))
    first = await call.read()
    credit = neuron_service_pb2.SessionCredit(sequence_id=1, tokens=6)
    await call.write(neuron_service_pb2.SessionRequest(credits=[credit]))
    second = await call.read()

    assert (list(first.text_token_counts), len(first.ends)) == ([10], 0)
    assert (list(second.text_token_counts), len(second.ends)) == ([6], 1)
    call.cancel()


async def test_nothing_comes_of_a_cancelled_sequence(neuron) -> None:
    call = neuron.Session()
    await call.write(neuron_service_pb2.SessionRequest(starts=[start(1, 16, credit=10)]))
    await call.read()
    credit = neuron_service_pb2.SessionCredit(sequence_id=1, tokens=6)
    await call.write(
        neuron_service_pb2.SessionRequest(cancelled_sequence_ids=[1], credits=[credit])
    )
    await call.write(neuron_service_pb2.SessionRequest(starts=[start(2, 1)]))

    answer = await call.read()

    assert list(answer.text_sequence_ids) == [2]
    call.cancel()


async def test_a_session_ends_well_when_its_caller_is_done(neuron) -> None:
    call = neuron.Session()
    await call.write(neuron_service_pb2.SessionRequest(starts=[start(1, 1)]))
    await call.read()
    await call.done_writing()

    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_a_large_answer_crosses_frames_and_windows(neuron) -> None:
    call = neuron.Session()
    starts = [start(number, 3000, credit=10_000) for number in range(200)]
    await call.write(neuron_service_pb2.SessionRequest(starts=starts))
    tokens = ends = 0
    while ends < len(starts):
        answer = await call.read()
        tokens += sum(answer.text_token_counts)
        ends += len(answer.ends)

    assert tokens == 200 * 3000
    call.cancel()


async def test_other_methods_are_refused(neuron) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await neuron.GetStatus(neuron_service_pb2.GetStatusRequest())

    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("name", ["NS8", "PX64", "T64"])
def test_the_load_generator_counts_what_the_mock_sends(
    mock: Mock, tmp_path: Path, name: str
) -> None:
    workload = WORKLOADS[name]

    sample = LoadGenerator(tmp_path).run(
        workload, port=mock.http_port, pids=mock.process.pids(), seconds=0.3, warm_seconds=0.1
    )

    assert (sample.errors, sample.refused) == (0, 0)
    assert sample.tokens > 0
    assert sample.cpu_us > 0
    if workload.whole:
        assert sample.tokens == sample.requests * workload.tokens
    if workload.stamped:
        assert 0 < sample.delivery_us.p50 < 1e6


async def test_the_stub_registry_shows_one_neuron_that_is_ready() -> None:
    listen = f"127.0.0.1:{free_port()}"
    server = asyncio.create_task(serve(listen, "127.0.0.1:1"))
    async with asyncio.timeout(60), grpc.aio.insecure_channel(listen) as channel:
        stub = registry_service_pb2_grpc.RegistryServiceStub(channel)
        watch = stub.WatchFleet(registry_service_pb2.WatchFleetRequest(), wait_for_ready=True)
        change = cast("registry_service_pb2.WatchFleetResponse", await watch.read())
        ensure = stub.EnsureModel(registry_service_pb2.EnsureModelRequest(model=MODEL))
        placed = [step async for step in ensure]
        watch.cancel()
    server.cancel()
    await asyncio.wait({server})

    (neuron,) = change.snapshot.neurons
    (instance,) = neuron.report.instances
    assert (neuron.identity.address, instance.spec.model) == ("127.0.0.1:1", MODEL)
    assert instance.state == model_pb2.INSTANCE_STATE_READY
    assert placed[-1].placed.instance_id == instance.instance_id

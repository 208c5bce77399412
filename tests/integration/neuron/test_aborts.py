"""A library that aborts its process at one request: who is in it beside goes on."""

from __future__ import annotations

import asyncio
import pathlib
import sys
from collections.abc import Sequence

import pytest

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import Reason
from tests.doubles.neuron_host import NeuronHost, chat, refusal, running_neuron
from tests.doubles.neuron_transports import answer, session_of

WHOLE = 2500
LONG = generation.StopRules(max_tokens=WHOLE)
FATAL = "so ~ be it"


def aborting(*, engine: str, fd: int) -> Sequence[str]:
    module = "tests.doubles.neuron_aborting_worker"
    return [sys.executable, "-m", module, "--engine", engine, "--fd", str(fd)]


@pytest.fixture
async def host(tmp_path: pathlib.Path):
    async with running_neuron(tmp_path, worker_command=aborting) as host:
        host.script("endless", words=("la", " li", " lu"), is_endless=True, context=20_000)
        host.script("other", words=("do", " re", " mi"), is_endless=True, context=20_000)
        for name in ("endless", "other"):
            await host.load(name, max_context_tokens=20_000, max_sequences=4)
        yield host


def plain(name: str) -> generation.GenerateRequest:
    return chat("hi", model=name, stop=LONG, sampling=generation.Sampling(temperature=0))


async def is_ready_again(host: NeuronHost) -> None:
    await host.until(
        lambda status: all(
            one.state == model.INSTANCE_STATE_READY for one in status.report.instances
        )
    )


async def test_a_request_that_aborts_the_process_fails_and_its_neighbours_go_on(host: NeuronHost):
    async with session_of(host) as session:
        whole = await answer(session.start(plain("endless")))
        neighbours = [session.start(plain(name)) for name in ("endless", "endless", "other")]
        await host.until_busy("endless", 2)
        await host.until_busy("other", 1)
        fatal = session.start(chat(FATAL, model="endless", stop=LONG))

        made = await answer(fatal)
        rest = await asyncio.gather(*(answer(stream) for stream in neighbours))

    assert made.error is not None
    assert made.error.reason is Reason.INTERNAL  # which nobody tries elsewhere
    assert made.tokens == 0
    assert [one.error for one in rest] == [None] * 3
    assert [one.tokens for one in rest] == [WHOLE] * 3
    assert all(one.finished.resumed for one in rest)
    assert rest[0].text == rest[1].text == whole.text
    await is_ready_again(host)
    (worker,) = (await host.status()).report.workers
    assert worker.restarts == 3
    assert "out of device memory" in worker.last_words


async def test_a_request_alone_that_aborts_the_process_fails_at_the_second_worker(
    tmp_path: pathlib.Path,
):
    async with running_neuron(tmp_path, worker_command=aborting) as host:
        host.script("endless")
        await host.load("endless")
        async with session_of(host) as session:
            made = await answer(session.start(chat(FATAL, model="endless", stop=LONG)))

        assert made.error is not None
        assert made.error.reason is Reason.INTERNAL
        await is_ready_again(host)
        (worker,) = (await host.status()).report.workers
        assert worker.restarts == 2


async def test_a_file_that_two_workers_died_of_is_not_tried_again_and_others_go_on(
    host: NeuronHost,
):
    host.script("fatal")
    wanted = neuron.LoadRequest(spec=model.LoadSpec(model="fatal"))
    async with session_of(host) as session:
        stream = session.start(plain("endless"), credit=8)
        await host.until_busy("endless")

        lost = []
        for _ in range(2):
            lost.append(await refusal(host.stub.Load(wanted)))
            await is_ready_again(host)
        refused = await refusal(host.stub.Load(wanted))
        stream.grant(WHOLE)
        made = await answer(stream)

    assert [error.reason for error in lost] == [Reason.WORKER_LOST] * 2
    assert refused.reason is Reason.MODEL_FILE_BAD
    assert "fatal.gguf" in refused.message
    (worker,) = (await host.status()).report.workers
    assert worker.restarts == 2
    assert made.error is None
    assert made.tokens == WHOLE
    host.script("fatal", words=("another", " file"))
    again = await refusal(host.stub.Load(wanted))
    assert again.reason is Reason.WORKER_LOST  # it is tried

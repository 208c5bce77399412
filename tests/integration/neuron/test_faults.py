"""Workers that die, stand still, grow or talk nonsense; and what callers see of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import signal
import sys
import time
from collections.abc import Sequence

import pytest

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import Reason
from services.neuron.instances.instances import Instance
from services.neuron.instances.worker_loads import WorkerLoads
from services.neuron.settings import WorkerLimits
from services.neuron.supervisor import watch
from services.neuron.supervisor.slot import WorkerSlot
from tests.doubles.neuron_host import NeuronHost, chat, refusal, running_neuron
from tests.doubles.neuron_transports import answer, session_of, transport_of


def faulty(fault: str):
    def command(*, engine: str, fd: int) -> Sequence[str]:  # noqa: ARG001 - as called
        module = "tests.doubles.neuron_faulty_worker"
        return [sys.executable, "-m", module, "--fault", fault, "--fd", str(fd)]

    return command


@pytest.fixture
async def host(tmp_path: pathlib.Path):
    async with running_neuron(tmp_path) as host:
        host.script("bravo")
        host.script("endless", words=("la", " li", " lu"), is_endless=True, context=20_000)
        await host.load("bravo")
        await host.load("endless", max_context_tokens=20_000)
        yield host


async def worker_pid(host: NeuronHost) -> int:
    return (await host.status()).report.workers[0].pid


async def started(stream) -> None:
    async for event in stream:
        if event.HasField("text"):
            return


@pytest.mark.parametrize("kind", ["generate", "session"])
async def test_a_killed_worker_costs_a_pause_not_the_answer(host, kind):
    async with transport_of(kind, host) as transport:
        rules = generation.StopRules(max_tokens=3000)
        request = chat(model="endless", stop=rules, sampling=generation.Sampling(temperature=0))
        whole = await answer(transport.start(request))
        stream = transport.start(request)
        async for event in stream:
            if event.HasField("text"):
                beginning = event.text
                break

        os.kill(await worker_pid(host), signal.SIGKILL)
        rest = await answer(stream)

    assert rest.finished.resumed
    assert beginning.text + rest.text == whole.text
    assert rest.finished.usage.completion_tokens == 3000
    assert len(beginning.token_ids) + rest.tokens == 3000


async def test_a_seeded_stream_goes_on_as_it_would_have_gone(host):
    request = chat(
        model="endless",
        stop=generation.StopRules(max_tokens=1000, ignore_eos=True),
        sampling=generation.Sampling(temperature=6, top_k=0, top_p=1, min_p=0, seed=7),
    )
    async with transport_of("generate", host) as transport:
        whole = await answer(transport.start(request))
        stream = transport.start(request)
        beginning = ""
        async for event in stream:
            beginning += event.text.text
            if event.HasField("text"):
                break
        os.kill(await worker_pid(host), signal.SIGKILL)
        rest = await answer(stream)

    assert rest.finished.resumed
    assert beginning + rest.text == whole.text
    assert not whole.text.startswith("la li lu" * 30)  # chance had a say


async def test_recovering_is_visible_and_then_everything_works_again(host):
    seen = asyncio.create_task(
        host.until(
            lambda status: all(
                one.state == model.INSTANCE_STATE_RECOVERING for one in status.report.instances
            )
        )
    )
    await asyncio.sleep(0)

    os.kill(await worker_pid(host), signal.SIGKILL)

    status = await seen
    assert "SIGKILL" in status.report.instances[0].state_reason
    ready = await host.until(
        lambda status: all(
            one.state == model.INSTANCE_STATE_READY for one in status.report.instances
        )
    )
    assert ready.report.workers[0].restarts == 1
    made = [event async for event in host.stub.Generate(chat(model="bravo"))]
    assert made[-1].HasField("finished")


async def test_a_recovering_instance_refuses_new_work_with_a_hint(tmp_path):
    slow = WorkerLimits(first_pause_seconds=5.0)
    async with running_neuron(tmp_path, workers=slow) as host:
        host.script("bravo")
        await host.load("bravo")
        os.kill(await worker_pid(host), signal.SIGKILL)
        await host.until(
            lambda status: status.report.instances[0].state == model.INSTANCE_STATE_RECOVERING
        )

        error = await refusal(host.stub.Generate(chat(model="bravo")))

        assert error.reason is Reason.INSTANCE_RECOVERING
        assert error.retry_after_seconds


async def killed_and_back(host: NeuronHost, restarts: int) -> None:
    """Kills the worker; returns when the next one decodes what was in it."""
    os.kill(await worker_pid(host), signal.SIGKILL)
    await host.until(lambda status: status.report.workers[0].restarts == restarts)
    await host.until_busy("endless")


async def test_a_request_does_not_outlive_two_workers_at_one_place(host):
    async with session_of(host) as session:
        request = chat(model="endless", stop=generation.StopRules(max_tokens=15000))
        stream = session.start(request, credit=8)
        await started(stream)
        await killed_and_back(host, restarts=1)

        os.kill(await worker_pid(host), signal.SIGKILL)
        made = await answer(stream)

    assert made.error is not None
    # Of a reason that nobody tries again: the request may be what they died of.
    assert made.error.reason is Reason.INTERNAL
    assert not made.error.facts
    await host.until(
        lambda status: all(
            one.state == model.INSTANCE_STATE_READY for one in status.report.instances
        )
    )


async def test_a_request_outlives_workers_that_die_at_different_places(host):
    async with session_of(host) as session:
        rules = generation.StopRules(max_tokens=300)
        stream = session.start(chat(model="endless", stop=rules), credit=8)
        made = 0
        for death in (1, 2, 3):
            async for event in stream:
                made += len(event.text.token_ids)
                if made >= 8 + (death - 1) * 64:
                    break
            await killed_and_back(host, restarts=death)
            stream.grant(64)
        stream.grant(300)
        rest = await answer(stream)

    assert rest.finished.resumed
    assert made + rest.tokens == 300


async def test_a_daemon_that_was_stopped_itself_blames_no_worker(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "_ABSENT_SECONDS", 1.0)
    limits = WorkerLimits(stall_seconds=2.0, first_pause_seconds=0.05)
    async with running_neuron(tmp_path, workers=limits) as host:
        host.script("bravo")
        await host.load("bravo")
        before = await worker_pid(host)

        time.sleep(4.0)  # noqa: ASYNC251 - the loop stands still, as with SIGSTOP
        assert [event async for event in host.stub.Generate(chat(model="bravo"))]

        assert await worker_pid(host) == before


async def test_a_worker_that_stands_still_is_replaced(tmp_path):
    limits = WorkerLimits(stall_seconds=1.5, first_pause_seconds=0.05)
    async with running_neuron(tmp_path, workers=limits) as host:
        host.script("endless", words=("la", " li", " lu"), is_endless=True)
        await host.load("endless")
        async with transport_of("generate", host) as transport:
            rules = generation.StopRules(max_tokens=3000)
            stream = transport.start(chat(model="endless", stop=rules))
            await started(stream)
            os.kill(await worker_pid(host), signal.SIGSTOP)

            made = await answer(stream)

        assert made.finished.resumed
        worker = (await host.status()).report.workers[0]
        assert worker.restarts == 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("stillborn", "the driver said no"),
        ("mute", "not ready in 1 s"),
        ("endless load", "no progress"),
        ("garbage", "cannot be read"),
    ],
)
async def test_a_worker_that_cannot_load_says_why_and_leaves_nothing(tmp_path, fault, words):
    limits = WorkerLimits(
        start_seconds=1.0 if fault == "mute" else 60.0,
        load_stall_seconds=1.0,
        first_pause_seconds=0.05,
    )
    async with running_neuron(tmp_path, worker_command=faulty(fault), workers=limits) as host:
        host.script("bravo")

        request = neuron.LoadRequest(spec=model.LoadSpec(model="bravo"))
        error = await refusal(host.stub.Load(request))

        assert error.reason in {Reason.LOAD_FAILED, Reason.WORKER_LOST}
        assert words in error.message
        assert not (await host.status()).report.instances


async def test_a_load_fails_whose_worker_dies_before_it_is_told(tmp_path, monkeypatch):
    load = WorkerLoads.load

    async def outlived(loads: WorkerLoads, slot: WorkerSlot, instance: Instance) -> None:
        await load(loads, slot, instance)
        os.kill(await worker_pid(mine), signal.SIGKILL)
        while instance.link is not None:
            await asyncio.sleep(0.01)

    async with running_neuron(tmp_path) as mine:
        mine.script("bravo")
        monkeypatch.setattr(WorkerLoads, "load", outlived)
        request = neuron.LoadRequest(spec=model.LoadSpec(model="bravo"))
        assert (await refusal(mine.stub.Load(request))).reason is Reason.WORKER_LOST
        assert not (await mine.status()).report.instances

        monkeypatch.setattr(WorkerLoads, "load", load)
        assert (await mine.load("bravo")).state == model.INSTANCE_STATE_READY
        assert [event async for event in mine.stub.Generate(chat(model="bravo"))]


@pytest.mark.parametrize("fault", ["glutton", "stalled", "dies at once"])
async def test_a_worker_that_fails_again_and_again_is_quarantined(tmp_path, fault):
    # on a busy machine any worker is silent for a second, and may be while it loads
    stall_seconds = 3.0 if fault == "stalled" else 20.0
    limits = WorkerLimits(
        deaths=2, first_pause_seconds=0.05, stall_seconds=stall_seconds, memory_bytes=1 << 40
    )
    async with running_neuron(tmp_path, worker_command=faulty(fault), workers=limits) as host:
        host.script("bravo")
        await host.load("bravo")

        def is_quarantined(status: neuron.NeuronStatus) -> bool:
            workers = status.report.workers
            return bool(workers) and workers[0].state == neuron.WORKER_STATE_QUARANTINED

        poking = asyncio.create_task(poke(host))
        status = await host.until(is_quarantined)
        poking.cancel()
        await asyncio.gather(poking, return_exceptions=True)

        instance = status.report.instances[0]
        assert instance.state == model.INSTANCE_STATE_FAILED
        assert instance.state_reason
        assert status.report.devices[-1].quarantine_reason
        if fault == "dies at once":
            assert "a kernel went wrong" in status.report.workers[0].last_words
        refused = await refusal(host.stub.Generate(chat(model="bravo")))
        assert refused.reason is Reason.INSTANCE_GONE
        again = neuron.LoadRequest(spec=model.LoadSpec(model="bravo"))
        assert (await refusal(host.stub.Load(again))).reason is Reason.LOAD_FAILED
        # An operator who has looked unloads it, and it starts afresh.
        [step async for step in host.stub.Unload(neuron.UnloadRequest(model="bravo"))]
        assert (await host.load("bravo")).state == model.INSTANCE_STATE_READY


async def poke(host: NeuronHost) -> None:
    """Sends requests until the worker has had enough."""
    while True:
        with contextlib.suppress(AssertionError):
            await refusal(host.stub.Generate(chat(model="bravo")))
        await asyncio.sleep(0.02)

"""An exception anywhere in the loops that serve many ends one request; a bystander finishes."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import Reason
from services.backplane.rpc.server import Server
from services.neuron.devices.inventory import Devices
from services.neuron.devices.watch import DeviceWatch
from services.neuron.instances.instances import Instances
from services.neuron.instances.recover import Recovery
from services.neuron.rendering.renderer import Renderer
from services.neuron.serving.accounting import GenerationFigures
from services.neuron.serving.delivery import Delivery
from services.neuron.serving.generation import Generation
from services.neuron.serving.generations import Generations
from services.neuron.serving.pending import Pending
from services.neuron.serving.session import SessionStream
from services.neuron.supervisor.link import WorkerLink
from services.neuron.supervisor.process import WorkerProcess
from tests.doubles.neuron_host import PATIENCE_SECONDS, NeuronHost, chat, running_neuron
from tests.doubles.neuron_transports import Answer, answer, session_of

TOKENS = 60
SHORT = generation.StopRules(max_tokens=3)


@pytest.fixture
async def host(tmp_path: pathlib.Path) -> AsyncGenerator[NeuronHost]:
    async with running_neuron(tmp_path) as host:
        host.script("bystander", words=("la", " li", " lu"), is_endless=True)
        host.script("victim", words=("la", " li", " lu"), is_endless=True)
        await host.load("bystander")
        await host.load("victim")
        yield host


def break_once(monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> list[None]:
    """The next call raises; what is returned is not empty once it has."""
    genuine = getattr(owner, name)
    raised: list[None] = []

    def fail(*args: Any, **kwargs: Any) -> Any:
        if raised:
            return genuine(*args, **kwargs)
        raised.append(None)
        raise RuntimeError("injected by a test")

    monkeypatch.setattr(owner, name, fail)
    return raised


def unforeseen(host: NeuronHost) -> float:
    return sum(
        sample.value
        for metric in host.served.metrics.collect()
        for sample in metric.samples
        if sample.name == "cortex_neuron_unforeseen_errors_total"
    )


async def run_to_its_end(session: Any) -> Answer:
    return await answer(session.start(chat(model="victim", stop=SHORT)))


async def run_large(session: Any) -> Answer:
    return await answer(session.start(chat("x " * 40_000, model="victim", stop=SHORT)))


async def run_out_of_credit(session: Any) -> Answer:
    stream = session.start(chat(model="victim", stop=SHORT), credit=1)
    async for event in stream:
        if event.HasField("text"):
            break
    stream.grant(10)
    return await answer(stream)


async def cancel(session: Any) -> None:
    stream = session.start(chat(model="victim"), credit=1)
    async for event in stream:
        if event.HasField("text"):
            break
    await stream.cancel()


POINTS: list[tuple[type, str, Callable[[Any], Any]]] = [
    (SessionStream, "_start", run_to_its_end),
    (SessionStream, "_begin", run_to_its_end),
    (SessionStream, "_grant", run_out_of_credit),
    (SessionStream, "_cancel", cancel),
    (Generations, "begin", run_to_its_end),
    (Generations, "begin", run_large),
    (Renderer, "render", run_to_its_end),
    (Generation, "start", run_to_its_end),
    (Generation, "on_event", run_to_its_end),
    (Generation, "grant", run_out_of_credit),
    (Generation, "cancel", cancel),
    (Generation, "_mind_credit", run_to_its_end),
    (Delivery, "take", run_to_its_end),
    (Delivery, "finish", run_to_its_end),
    (GenerationFigures, "note_output", run_to_its_end),
    (GenerationFigures, "note_times", run_to_its_end),
    (GenerationFigures, "close", run_to_its_end),
    (Pending, "event", run_to_its_end),
    (Pending, "text", run_to_its_end),
    (Pending, "end", run_to_its_end),
    (Instances, "begin", run_to_its_end),
    (Instances, "end", run_to_its_end),
    (Instances, "note_stats", run_to_its_end),
    (WorkerProcess, "send", run_to_its_end),
    (WorkerLink, "submit", run_to_its_end),
    (WorkerLink, "credit", run_out_of_credit),
    (WorkerLink, "cancel", cancel),
    (WorkerLink, "_bring", run_to_its_end),
]


async def test_a_bystander_finishes_wherever_an_exception_comes_from(
    host: NeuronHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    for owner, name, act in POINTS:
        with monkeypatch.context() as patched:
            try:
                await check_bystander(host, patched, owner, name, act)
            except BaseException as error:
                error.add_note(f"at {owner.__name__}.{name}")
                raise


async def check_bystander(
    host: NeuronHost,
    monkeypatch: pytest.MonkeyPatch,
    owner: type,
    name: str,
    act: Callable[[Any], Any],
) -> None:
    before = unforeseen(host)
    async with session_of(host) as session:
        rules = generation.StopRules(max_tokens=TOKENS)
        bystander = session.start(chat(model="bystander", stop=rules), credit=1)
        async for event in bystander:
            if event.HasField("text"):
                break

        raised = break_once(monkeypatch, owner, name)
        async with asyncio.timeout(PATIENCE_SECONDS):
            victim = await act(session)
            while not (raised and unforeseen(host) > before):
                await asyncio.sleep(0.01)

        bystander.grant(TOKENS)
        rest = await answer(bystander)
        assert rest.finished.usage.completion_tokens == TOKENS
        after = await answer(session.start(chat(model="victim", stop=SHORT)))
        assert after.finished.usage.completion_tokens == 3
    if victim is not None and victim.error is not None:
        assert victim.error.reason is Reason.INTERNAL
        assert "injected" not in victim.error.message


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (Devices, "read"),
        (DeviceWatch, "look"),
    ],
)
async def test_upkeep_goes_on(
    host: NeuronHost, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    raised = break_once(monkeypatch, owner, name)

    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (raised and unforeseen(host)):
            await asyncio.sleep(0.05)

    assert not host.served.broken.is_set()


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (DeviceWatch, "cause"),
        (DeviceWatch, "vacated"),
        (Recovery, "on_worker_changed"),
        (Recovery, "on_worker_up"),
        (Generation, "on_worker_lost"),
        (Generation, "resume"),
        (Instances, "note_progress"),
        (Server, "set_health"),
    ],
)
async def test_a_worker_s_death_is_survived_all_the_same(
    host: NeuronHost, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    status = await host.status()
    raised = break_once(monkeypatch, owner, name)
    async with session_of(host) as session:
        stream = session.start(chat(model="victim"), credit=1)
        async for event in stream:
            if event.HasField("text"):
                break
        os.kill(status.report.workers[0].pid, signal.SIGKILL)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                later = await answer(session.start(chat(model="bystander", stop=SHORT)))
                if raised and later.error is None:
                    break
                await asyncio.sleep(0.1)
    assert unforeseen(host) >= 1


async def test_a_neuron_that_lost_track_of_its_workers_ends(host, monkeypatch):
    status = await host.status()
    break_once(monkeypatch, Recovery, "on_worker_down")

    os.kill(status.report.workers[0].pid, signal.SIGKILL)

    await asyncio.wait_for(host.served.broken.wait(), PATIENCE_SECONDS)


async def test_text_that_no_message_can_carry_fails_its_own_sequence(host, monkeypatch):
    genuine = Pending.text
    spoiled: list[int] = []

    def spoil(self: Pending, sequence_id: int, text: str, *rest: Any) -> None:
        if not spoiled:
            spoiled.append(sequence_id)
        genuine(self, sequence_id, "\ud83d" if sequence_id in spoiled else text, *rest)

    async with session_of(host) as session:
        monkeypatch.setattr(Pending, "text", spoil)
        victim = await answer(session.start(chat(model="victim", stop=SHORT)))
        assert victim.error is not None
        assert victim.error.reason is Reason.INTERNAL
        bystander = await answer(session.start(chat(model="bystander", stop=SHORT)))
        assert bystander.finished.usage.completion_tokens == 3


async def test_a_session_whose_caller_fails_ends_what_it_runs(host):
    call = host.stub.Session()
    start = neuron.SessionStart(sequence_id=1, request=chat(model="victim"), credit_tokens=1)
    await call.write(neuron.SessionRequest(starts=[start]))
    await host.until_busy("victim")

    call.cancel()

    await host.until_idle("victim")

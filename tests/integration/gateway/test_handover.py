"""A gateway's successor takes its socket: no request is refused, no stream is cut."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import signal
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import openai
import psutil
import pytest
from typing_extensions import override

from services.backplane.process.lifecycle import Shutdown
from services.gateway.handover import Handover
from services.gateway.settings import GatewaySettings
from services.gateway.workers import Keeper
from tests.doubles.processes import free_port
from tests.doubles.scripted_neuron import Script, ScriptedNeuron, text
from tests.doubles.stand_in_registry import StandInRegistry
from tests.integration.gateway.fleet import chat_body
from tests.integration.gateway.gateway_process import Process, ready, settings

WORDS = [f"{number} " for number in range(20)]
STREAMS = 16


@pytest.fixture
async def registry() -> AsyncIterator[StandInRegistry]:
    one = StandInRegistry()
    await one.start()
    quick, slow = ScriptedNeuron("n1"), ScriptedNeuron("n2", ["slow"])
    slow.scripts = [Script(events=[text(word) for word in WORDS], gap=0.2)]
    for neuron, model in ((quick, "tiny"), (slow, "slow")):
        await neuron.start()
        one.add_model(model)
        one.put(neuron.described())
    yield one
    await quick.stop()
    await slow.stop()
    await one.stop()


@contextlib.asynccontextmanager
async def ended_after(line: str) -> AsyncIterator[int]:
    """Sees to it that a successor, which is nobody's child, ends with the test."""
    successor = int(json.loads(line)["successor"])
    try:
        yield successor
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(successor, signal.SIGTERM)
        async with asyncio.timeout(60):
            while is_alive(successor):
                await asyncio.sleep(0.05)


def is_alive(pid: int) -> bool:
    """Whether a process runs that may be nobody's child."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_successor_takes_over_and_nothing_is_refused_or_cut(
    gateway: Process, registry: StandInRegistry, workers: int
) -> None:
    port, metrics = free_port(), free_port()
    given = settings(registry.address, port=port, more=f"workers = {workers}\ndrain_seconds = 1")
    await gateway.start(given.replace('metrics_listen = ""', f'metrics_listen = "[::1]:{metrics}"'))
    await ready(port)
    client = openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="-")
    answered: list[str | None] = []
    over = asyncio.Event()

    async def stream() -> str:
        chunks = await client.chat.completions.create(
            model="slow", messages=[{"role": "user", "content": "Count."}], stream=True
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

    async def ask_on() -> None:
        while not over.is_set():
            answer = await client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "Hi."}]
            )
            answered.append(answer.choices[0].message.content)

    streams = [asyncio.create_task(stream()) for _ in range(STREAMS)]
    asking = [asyncio.create_task(ask_on()) for _ in range(4)]
    await asyncio.sleep(0.5)

    gateway.process.send_signal(signal.SIGUSR2)
    async with ended_after(await gateway.line("handover.done")):
        before = len(answered)
        told = await asyncio.gather(*streams)
        async with asyncio.timeout(60):
            while gateway.process.returncode is None:  # its successor holds its standard error
                await asyncio.sleep(0.05)
        await ready(port)
        while len(answered) < before + 50:
            await asyncio.sleep(0.05)
        over.set()
        await asyncio.gather(*asking)
        async with httpx.AsyncClient(trust_env=False) as plain, asyncio.timeout(60):
            while True:  # its port was the predecessor's
                with contextlib.suppress(httpx.TransportError):
                    if (await plain.get(f"http://[::1]:{metrics}/metrics")).status_code == 200:
                        break
                await asyncio.sleep(0.05)
    await client.close()

    assert ["".join(WORDS)] * STREAMS == told
    assert {"Hello world"} == set(answered)
    assert 0 == gateway.process.returncode


async def test_a_successor_that_cannot_start_changes_nothing(
    gateway: Process, registry: StandInRegistry
) -> None:
    port = free_port()
    await gateway.start(settings(registry.address, port=port))
    await ready(port)

    gateway.write("[gateway")
    gateway.process.send_signal(signal.SIGUSR2)
    failed = json.loads(await gateway.line("handover.failed"))

    async with httpx.AsyncClient(trust_env=False) as client:
        answer = await client.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=chat_body())
    assert 78 == failed["code"]
    assert 200 == answer.status_code
    assert gateway.process.returncode is None


@pytest.mark.parametrize("workers", [1, 2])
async def test_who_is_told_to_end_leaves_no_successor_behind(
    gateway: Process, registry: StandInRegistry, workers: int
) -> None:
    """The end is asked for when the successor is under way; an answer still runs when it is."""
    port = free_port()
    await gateway.start(settings(registry.address, port=port, more=f"workers = {workers}"))
    await ready(port)

    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        answering = asyncio.create_task(client.post(url, json=chat_body(model="slow")))
        await asyncio.sleep(0.5)
        for _ in range(20):
            gateway.process.send_signal(signal.SIGUSR2)
        successor = int(json.loads(await gateway.line("handover.begun"))["successor"])
        gateway.process.send_signal(signal.SIGTERM)
        try:
            answer = await answering
            async with asyncio.timeout(60):
                assert 0 == await gateway.process.wait()
                while is_alive(successor):
                    await asyncio.sleep(0.05)
            with socket.create_server(("127.0.0.1", port)):
                """Nobody holds it, no worker either."""
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(successor, signal.SIGKILL)
    assert "".join(WORDS) == answer.json()["choices"][0]["message"]["content"]


class Watched(Handover):
    """Looks at every turn of the event loop whether the workers are said to serve."""

    was_ready = False

    @contextlib.asynccontextmanager
    @override
    async def following(self, *_: Any, is_ready: Callable[[], bool], **__: Any):
        async def look() -> None:
            while True:
                self.was_ready = self.was_ready or is_ready()
                await asyncio.sleep(0)

        looking = asyncio.create_task(look())
        try:
            yield
        finally:
            looking.cancel()


async def test_workers_that_die_at_once_are_not_said_to_serve() -> None:
    handover = Watched(["--no-such-option"], ready_descriptor=None, take_socket=None)
    given = GatewaySettings(listen="127.0.0.1:0", metrics_listen="", workers=1)
    shutdown = Shutdown()
    keeping = asyncio.create_task(Keeper(given, handover).run(shutdown))

    await asyncio.sleep(3.0)
    shutdown.request()
    await keeping

    assert not handover.was_ready


async def test_the_service_manager_passes_the_socket_and_hears_who_serves(
    gateway: Process, registry: StandInRegistry, tmp_path: pathlib.Path
) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        socket.create_server(("127.0.0.1", 0)) as listener,
    ):
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(30)
        await gateway.start(
            settings(registry.address, port=1),
            passed=listener,
            NOTIFY_SOCKET=str(tmp_path / "notify"),
        )
        await ready(listener.getsockname()[1])
        heard = [await asyncio.to_thread(manager.recv, 64)]
        gateway.process.send_signal(signal.SIGUSR2)
        async with ended_after(await gateway.line("handover.done")) as successor:
            heard += [await asyncio.to_thread(manager.recv, 64) for _ in range(3)]

    assert b"READY=1" == heard[0]
    assert {b"READY=1", f"MAINPID={successor}".encode(), b"STOPPING=1"} == set(heard[1:])


async def test_a_passed_socket_that_others_reach_needs_keys(
    gateway: Process, registry: StandInRegistry
) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        await gateway.start(settings(registry.address, port=1), passed=listener)
        code, log = await gateway.ended()

    assert 78 == code
    assert "other machines reach this" in log

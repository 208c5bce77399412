"""`python -m services.neuron` as an operator runs it: starts, refuses to start, ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pathlib
import signal
import socket
import sys
from collections.abc import AsyncGenerator

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1.neuron_service_pb2_grpc import NeuronServiceStub
from services.backplane.errors import Reason
from services.backplane.rpc.channels import open_channel
from services.backplane.rpc.status import from_rpc_error
from tests.doubles import scripted
from tests.doubles.neuron_host import PATIENCE_SECONDS, chat, refusal


class Daemon:
    """One neuron as a process. Its own log says where it listens: a port chosen before can be lost.

    Attributes:
        process: the process.
        address: `host:port`.
        channel: to it.
        stub: of NeuronService.
    """

    def __init__(self, process: asyncio.subprocess.Process, address: str, head: str) -> None:
        self.process = process
        self.address = address
        self.channel = open_channel(address)
        self.stub = NeuronServiceStub(self.channel)
        self._head = head

    async def load(self, name: str) -> psutil.Process:
        """Loads a model; returns its worker."""
        request = neuron.LoadRequest(spec=model.LoadSpec(model=name))
        async for _ in self.stub.Load(request, wait_for_ready=True, timeout=PATIENCE_SECONDS):
            pass
        return psutil.Process(self.process.pid).children()[0]

    async def ended(self) -> tuple[int, str]:
        """The exit code and the whole log, once it has ended."""
        code, rest = await ended(self.process)
        return code, self._head + rest


async def start(folder: pathlib.Path, **keys: str) -> asyncio.subprocess.Process:
    chosen = {
        "LISTEN": "127.0.0.1:0",
        "METRICS_LISTEN": "",
        "REGISTRY": "[]",
        "MODELS_DIRS": f'["{folder}"]',
        "DRAIN_SECONDS": "1",
    }
    environment = {f"CORTEX_NEURON__{key}": value for key, value in {**chosen, **keys}.items()}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.neuron",
        env=os.environ | environment,
        stderr=asyncio.subprocess.PIPE,
    )


async def ended(process: asyncio.subprocess.Process) -> tuple[int, str]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        _, stderr = await process.communicate()
    assert process.returncode is not None
    return process.returncode, stderr.decode()


@contextlib.asynccontextmanager
async def serving(folder: pathlib.Path, **keys: str) -> AsyncGenerator[Daemon]:
    process = await start(folder, **keys)
    assert process.stderr is not None
    head = ""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while '"neuron.serving"' not in (line := (await process.stderr.readline()).decode()):
            assert line, head
            head += line
    daemon = Daemon(process, json.loads(line)["address"], head + line)
    try:
        yield daemon
    finally:
        await daemon.channel.close()
        if process.returncode is None:
            process.kill()
            await process.communicate()


def endless(folder: pathlib.Path) -> None:
    """A model that says more than can be read while a neuron drains."""
    script = scripted.Script(words=("la", " li"), is_endless=True, context=20_000)
    scripted.build(folder / "endless.gguf", script)


async def test_sigterm_drains_says_why_and_exits_with_zero(tmp_path):
    endless(tmp_path)
    async with serving(tmp_path) as daemon:
        worker = await daemon.load("endless")
        running = aiter(daemon.stub.Generate(chat(model="endless")))
        await anext(running)
        stub = health_pb2_grpc.HealthStub(daemon.channel)
        health = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await health.read()).status == health_pb2.HealthCheckResponse.SERVING

        daemon.process.send_signal(signal.SIGTERM)
        assert (await health.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as cut:
            async for _ in running:
                pass
        code, log = await daemon.ended()

    assert code == 0, log
    assert from_rpc_error(cut.value).reason is Reason.SHUTTING_DOWN
    assert "Traceback" not in log
    assert not worker.is_running()


async def test_a_hangup_ends_neither_neuron_nor_worker(tmp_path):
    endless(tmp_path)
    async with serving(tmp_path) as daemon:
        worker = await daemon.load("endless")
        running = aiter(daemon.stub.Generate(chat(model="endless")))
        await anext(running)

        daemon.process.send_signal(signal.SIGHUP)
        worker.send_signal(signal.SIGHUP)
        for _ in range(50):
            await anext(running)
        daemon.process.send_signal(signal.SIGTERM)
        code, log = await daemon.ended()

    assert code == 0, log
    assert '"settings.reloaded"' in log
    assert "worker.died" not in log


async def test_who_comes_while_it_drains_is_told_why(tmp_path):
    endless(tmp_path)
    # The drain ends with the request that it waits for, not with a clock that a late call races.
    async with serving(tmp_path, DRAIN_SECONDS=str(PATIENCE_SECONDS)) as daemon:
        await daemon.load("endless")
        call = daemon.stub.Generate(chat(model="endless"))
        await anext(aiter(call))
        stub = health_pb2_grpc.HealthStub(daemon.channel)
        health = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await health.read()).status == health_pb2.HealthCheckResponse.SERVING

        daemon.process.send_signal(signal.SIGTERM)
        assert (await health.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        refused = await refusal(daemon.stub.Generate(chat(model="endless")))
        call.cancel()
        code, log = await daemon.ended()

    assert refused.reason is Reason.SHUTTING_DOWN
    assert code == 0, log


async def test_sigterm_lets_what_ends_in_time_end(tmp_path):
    endless(tmp_path)
    async with serving(tmp_path, DRAIN_SECONDS="60") as daemon:
        await daemon.load("endless")
        rules = generation.StopRules(max_tokens=3_000)
        running = aiter(daemon.stub.Generate(chat(model="endless", stop=rules)))
        await anext(running)

        daemon.process.send_signal(signal.SIGTERM)
        events = [event async for event in running]
        code, log = await daemon.ended()

    assert code == 0, log
    assert events[-1].finished.usage.completion_tokens == 3_000


async def test_sigterm_is_obeyed_though_a_worker_stands_still(tmp_path):
    scripted.build(tmp_path / "bravo.gguf")
    async with serving(tmp_path) as daemon:
        worker = await daemon.load("bravo")
        worker.suspend()

        daemon.process.send_signal(signal.SIGTERM)
        code, log = await daemon.ended()
        await asyncio.to_thread(worker.wait, PATIENCE_SECONDS)

    assert code == 0, log
    assert "Traceback" not in log


async def test_a_daemon_that_is_killed_takes_its_worker_along(tmp_path):
    scripted.build(tmp_path / "bravo.gguf")
    async with serving(tmp_path) as daemon:
        worker = await daemon.load("bravo")

        daemon.process.kill()
        await daemon.ended()

    await asyncio.to_thread(worker.wait, PATIENCE_SECONDS)


@pytest.mark.parametrize(
    ("keys", "code", "words"),
    [
        ({"LISTEN": "nowhere"}, 78, "is not host:port"),
        ({"COLOUR": "red"}, 78, "neuron: Object contains unknown field `colour`"),
        ({"MAX_QUEUED": "many"}, 78, "neuron.max_queued"),
        (
            {"MAX_SEQUENCES": "0"},
            78,
            "CORTEX_NEURON__MAX_SEQUENCES: neuron.max_sequences: Expected `int` >= 1",
        ),
        ({"LISTEN": "127.0.0.1:taken"}, 69, "the address is in use"),
        ({"METRICS_LISTEN": "127.0.0.1:taken"}, 69, "in use"),
    ],
    ids=["address", "unknown key", "type", "range", "port", "metrics port"],
)
async def test_what_cannot_start_says_so_in_one_line(tmp_path, keys, code, words):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        keys = {key: value.replace("taken", port) for key, value in keys.items()}

        exit_code, log = await ended(await start(tmp_path, **keys))

    assert exit_code == code
    assert words in log
    assert "Traceback" not in log

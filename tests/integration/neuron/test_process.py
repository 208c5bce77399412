"""`python -m services.neuron` as an operator runs it: starts, refuses to start, ends."""

from __future__ import annotations

import asyncio
import os
import pathlib
import signal
import socket
import sys

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1.neuron_service_pb2_grpc import NeuronServiceStub
from services.backplane.channels import open_channel
from services.backplane.errors import Reason
from services.backplane.status import from_rpc_error
from tests.doubles import scripted
from tests.doubles.neuron_host import PATIENCE_SECONDS, chat


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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


async def test_sigterm_drains_says_why_and_exits_with_zero(tmp_path):
    scripted.build(tmp_path / "endless.gguf", scripted.Script(words=("la", " li"), is_endless=True))
    port = free_port()
    process = await start(tmp_path, LISTEN=f"127.0.0.1:{port}")
    channel = open_channel(f"127.0.0.1:{port}")
    stub = NeuronServiceStub(channel)
    load = neuron.LoadRequest(spec=model.LoadSpec(model="endless"))
    async for _ in stub.Load(load, wait_for_ready=True, timeout=PATIENCE_SECONDS):
        pass
    running = aiter(stub.Generate(chat(model="endless")))
    await anext(running)
    worker = psutil.Process(process.pid).children()[0]
    health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
    assert (await health.read()).status == health_pb2.HealthCheckResponse.SERVING

    process.send_signal(signal.SIGTERM)
    assert (await health.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    late = aiter(stub.Generate(chat(model="endless")))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await anext(late)
    assert from_rpc_error(refused.value).reason is Reason.SHUTTING_DOWN
    with pytest.raises(grpc.aio.AioRpcError) as cut:
        async for _ in running:
            pass
    code, log = await ended(process)

    assert code == 0, log
    assert from_rpc_error(cut.value).reason is Reason.SHUTTING_DOWN
    assert "Traceback" not in log
    assert not worker.is_running()
    await channel.close()


async def test_sigterm_lets_what_ends_in_time_end(tmp_path):
    scripted.build(
        tmp_path / "endless.gguf",
        scripted.Script(words=("la", " li"), is_endless=True, context=20_000),
    )
    port = free_port()
    process = await start(tmp_path, LISTEN=f"127.0.0.1:{port}", DRAIN_SECONDS="60")
    channel = open_channel(f"127.0.0.1:{port}")
    stub = NeuronServiceStub(channel)
    load = neuron.LoadRequest(spec=model.LoadSpec(model="endless"))
    async for _ in stub.Load(load, wait_for_ready=True, timeout=PATIENCE_SECONDS):
        pass
    rules = generation.StopRules(max_tokens=3_000)
    running = aiter(stub.Generate(chat(model="endless", stop=rules)))
    await anext(running)

    process.send_signal(signal.SIGTERM)
    events = [event async for event in running]
    code, log = await ended(process)

    assert code == 0, log
    assert events[-1].finished.usage.completion_tokens == 3_000
    await channel.close()


async def test_sigterm_is_obeyed_though_a_worker_stands_still(tmp_path):
    scripted.build(tmp_path / "bravo.gguf")
    port = free_port()
    process = await start(tmp_path, LISTEN=f"127.0.0.1:{port}")
    channel = open_channel(f"127.0.0.1:{port}")
    load = neuron.LoadRequest(spec=model.LoadSpec(model="bravo"))
    async for _ in NeuronServiceStub(channel).Load(
        load, wait_for_ready=True, timeout=PATIENCE_SECONDS
    ):
        pass
    worker = psutil.Process(process.pid).children()[0]
    worker.suspend()

    process.send_signal(signal.SIGTERM)
    code, log = await ended(process)

    assert code == 0, log
    assert "Traceback" not in log
    await asyncio.to_thread(worker.wait, PATIENCE_SECONDS)
    await channel.close()


async def test_a_daemon_that_is_killed_takes_its_worker_along(tmp_path):
    scripted.build(tmp_path / "bravo.gguf")
    port = free_port()
    process = await start(tmp_path, LISTEN=f"127.0.0.1:{port}")
    channel = open_channel(f"127.0.0.1:{port}")
    load = neuron.LoadRequest(spec=model.LoadSpec(model="bravo"))
    async for _ in NeuronServiceStub(channel).Load(
        load, wait_for_ready=True, timeout=PATIENCE_SECONDS
    ):
        pass
    worker = psutil.Process(process.pid).children()[0]

    process.kill()
    await ended(process)
    await channel.close()

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

"""A neuron as a process of its own, and a client that drives it over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1.neuron_service_pb2_grpc import NeuronServiceStub
from gpu.bench_setting import CACHE_TOKENS, CONTEXT_TOKENS, EMULATED, MODELS, SEQUENCES, WORK
from services.backplane.rpc.channels import open_channel

ROOT = pathlib.Path(__file__).resolve().parent.parent
START_SECONDS = 30.0


class Neuron:
    """A client of one neuron."""

    def __init__(self, address: str) -> None:
        self.channel = open_channel(address)
        self.stub: Any = NeuronServiceStub(self.channel)

    async def load(self, name: str, **fields: Any) -> model.Instance:
        """Loads a model and returns its ready instance."""
        spec = {
            "model": name,
            "engine": "exllamav2",
            "max_context_tokens": CONTEXT_TOKENS,
            "max_sequences": SEQUENCES,
            "cache_tokens": CACHE_TOKENS,
            "device_ids": ["cpu"] if EMULATED else [],
            **fields,
        }
        call = self.stub.Load(neuron.LoadRequest(spec=model.LoadSpec(**spec)))
        steps = [step async for step in call]
        ready: model.Instance = steps[-1].ready
        return ready

    async def unload(self, name: str) -> int:
        """Unloads a model; returns the bytes that it says it has freed."""
        steps = [step async for step in self.stub.Unload(neuron.UnloadRequest(model=name))]
        return int(steps[-1].unloaded.freed_bytes)

    async def status(self) -> neuron.NeuronReport:
        """What it holds now."""
        answer = await self.stub.GetStatus(neuron.GetStatusRequest())
        report: neuron.NeuronReport = answer.status.report
        return report

    async def generate(
        self,
        name: str,
        prompt: list[int],
        *,
        tokens: int,
        on_tokens: Callable[[int], None] = lambda _: None,
    ) -> tuple[list[int], generation.GenerationFinished, list[float]]:
        """One greedy stream of a fixed length: its tokens, its end, and when messages came."""
        request = generation.GenerateRequest(
            model=name,
            token_ids=generation.TokenIds(ids=prompt),
            sampling=generation.Sampling(temperature=0, top_p=1, top_k=0, repetition_penalty=1),
            stop=generation.StopRules(max_tokens=tokens, ignore_eos=True),
        )
        said: list[int] = []
        times: list[float] = []
        finished = generation.GenerationFinished()
        async for answer in self.stub.Generate(request):
            if answer.HasField("text"):
                times.append(time.perf_counter())
                said.extend(answer.text.token_ids)
                on_tokens(len(answer.text.token_ids))
            elif answer.HasField("finished"):
                finished = answer.finished
        return said, finished, times


@contextlib.contextmanager
def _process(name: str) -> Iterator[int]:
    """A neuron's daemon on a free port; its log lies beside the results."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    config = WORK / f"{name}.toml"
    config.write_text(
        f'[neuron]\nname = "{name}"\nlisten = "127.0.0.1:{port}"\nmetrics_listen = ""\n'
        f'registry = []\nmodels_dirs = ["{MODELS}"]\nallowed = {{ folders = ["/"] }}\n'
        "[neuron.workers]\nstart_seconds = 120.0\nstall_seconds = 10.0\n"
        "first_pause_seconds = 0.2\n",
        encoding="utf-8",
    )
    paths = [str(ROOT), str(ROOT / "protos"), os.environ.get("PYTHONPATH", "")]
    if EMULATED:
        paths.insert(0, str(ROOT / "tests/engines/exllamav2/emulated_noise"))
    environment = {**os.environ, "PYTHONPATH": ":".join(filter(None, paths))}
    with (WORK / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "gpu.served", "--config", str(config)],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
        )
        try:
            yield port
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()


@contextlib.asynccontextmanager
async def running(name: str) -> AsyncGenerator[Neuron]:
    """A neuron that serves."""
    with _process(name) as port:
        client = Neuron(f"127.0.0.1:{port}")
        try:
            await asyncio.wait_for(client.channel.channel_ready(), START_SECONDS)
            yield client
        finally:
            await client.channel.close()

"""A real neuron in this process: real gRPC, real worker process, scripted models."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

import grpc

from cortex.v1 import conversation_pb2 as conversation
from cortex.v1 import generation_pb2 as generation
from cortex.v1 import model_pb2 as model
from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1.neuron_service_pb2_grpc import NeuronServiceStub
from cortex.v1.storage_service_pb2_grpc import StorageServiceStub
from services.backplane.errors import FleetError
from services.backplane.rpc.channels import open_channel
from services.backplane.rpc.status import from_rpc_error
from services.neuron.instances.reclaim import MemoryReader
from services.neuron.settings import AllowedSources, NeuronSettings, WorkerLimits
from services.neuron.supervisor.process import WorkerCommand, python_worker
from services.neuron.wire import ServedNeuron, serving
from tests.doubles import scripted

PATIENCE_SECONDS = 60.0
QUICK = WorkerLimits(first_pause_seconds=0.05, start_seconds=20.0)


class NeuronHost:
    """A neuron, its client, and what tests ask of both."""

    def __init__(self, served: ServedNeuron, folder: pathlib.Path) -> None:
        self.served = served
        self.folder = folder
        self.channel = open_channel(served.address)
        self.stub: Any = NeuronServiceStub(self.channel)
        self.storage: Any = StorageServiceStub(self.channel)

    def script(self, name: str, **choices: Any) -> None:
        """Puts a scripted model on the neuron's disk."""
        scripted.build(self.folder / f"{name}.gguf", scripted.Script(name=name, **choices))

    async def load(self, name: str, **fields: Any) -> model.Instance:
        """Loads a model and returns the ready instance."""
        request = neuron.LoadRequest(spec=model.LoadSpec(model=name, **fields))
        steps = [step async for step in self.stub.Load(request)]
        ready: model.Instance = steps[-1].ready
        return ready

    async def status(self) -> neuron.NeuronStatus:
        """What GetStatus says."""
        answer = await self.stub.GetStatus(neuron.GetStatusRequest())
        status: neuron.NeuronStatus = answer.status
        return status

    async def instance(self, name: str) -> model.Instance | None:
        """The model's instance as GetStatus shows it."""
        report = (await self.status()).report
        return next((one for one in report.instances if one.spec.model == name), None)

    async def until(self, holds: Callable[[neuron.NeuronStatus], bool]) -> neuron.NeuronStatus:
        """The first status of WatchStatus for which something holds."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            call = self.stub.WatchStatus(neuron.WatchStatusRequest())
            try:
                async for answer in call:
                    status: neuron.NeuronStatus = answer.status
                    if holds(status):
                        return status
            finally:
                call.cancel()
        raise AssertionError("the status never came")

    async def until_idle(self, name: str) -> None:
        """Returns when no request runs or waits on a model."""

        def is_idle(status: neuron.NeuronStatus) -> bool:
            return not any(
                one.active_requests or one.queued_requests
                for one in status.report.instances
                if one.spec.model == name
            )

        await self.until(is_idle)

    async def until_busy(self, name: str, count: int = 1) -> None:
        """Returns when so many requests are being decoded on a model."""

        def is_busy(status: neuron.NeuronStatus) -> bool:
            report = status.report
            return any(
                one.active_requests >= count for one in report.instances if one.spec.model == name
            )

        await self.until(is_busy)


@contextlib.asynccontextmanager
async def running_neuron(
    folder: pathlib.Path,
    *,
    worker_command: WorkerCommand = python_worker,
    memory: MemoryReader | None = None,
    **settings: Any,
) -> AsyncGenerator[NeuronHost]:
    """A neuron on port 0 that attaches nowhere, with its models in a folder."""
    chosen = {
        "name": "beast",
        "listen": "127.0.0.1:0",
        "metrics_listen": "127.0.0.1:0",
        "registry": (),
        "models_dirs": (str(folder),),
        "allowed": AllowedSources(sources=("path", "hf", "package"), folders=("/",)),
        "drain_seconds": 5.0,
        "workers": QUICK,
    }
    made = NeuronSettings(**{**chosen, **settings})
    async with serving(made, worker_command=worker_command, memory=memory) as served:
        host = NeuronHost(served, folder)
        await asyncio.wait_for(host.channel.channel_ready(), PATIENCE_SECONDS)
        try:
            yield host
        finally:
            await host.channel.close()


def chat(text: str = "hi", **fields: Any) -> generation.GenerateRequest:
    """A request with one user turn; fields are those of GenerateRequest."""
    turn = conversation.Message(role=conversation.ROLE_USER, parts=[conversation.Part(text=text)])
    return generation.GenerateRequest(
        request_id="r1", chat=conversation.Chat(messages=[turn]), **fields
    )


async def refusal(call: Any) -> FleetError:
    """The error that a call ends with."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return from_rpc_error(error)
    raise AssertionError("the call did not fail")

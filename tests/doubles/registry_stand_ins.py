"""A real registry and scripted neurons over loopback, for faults that real neurons do not make."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from typing import Any

import grpc

from cortex.v1 import (
    accounting_service_pb2_grpc,
    key_service_pb2_grpc,
    operator_service_pb2_grpc,
    registry_service_pb2,
    registry_service_pb2_grpc,
    storage_service_pb2_grpc,
)
from services.backplane.rpc.channels import open_channel
from services.backplane.rpc.status import from_rpc_error
from services.backplane.settings import Document
from services.registry.wire import running
from tests.doubles.registry_neuron import LOOPBACK, ScriptedNeuron, eventually, task_ended


class Fleet:
    """A registry, its clients, and the neurons that attach to it."""

    def __init__(self, address: str, stack: contextlib.AsyncExitStack) -> None:
        self.address = address
        self._stack = stack
        self._channel = open_channel(address)
        self.registry: Any = registry_service_pb2_grpc.RegistryServiceStub(self._channel)
        self.operator: Any = operator_service_pb2_grpc.OperatorServiceStub(self._channel)
        self.accounting: Any = accounting_service_pb2_grpc.AccountingServiceStub(self._channel)
        self.storage: Any = storage_service_pb2_grpc.FleetStorageServiceStub(self._channel)
        self.keys: Any = key_service_pb2_grpc.KeyServiceStub(self._channel)
        stack.push_async_callback(self._channel.close)

    async def add(self, neuron: ScriptedNeuron) -> asyncio.Task[None]:
        """Serves and attaches a neuron; cancelling the task detaches it."""
        task = await self.add_unseen(neuron)
        await self.until(lambda names: neuron.name in names)
        return task

    async def add_unseen(self, neuron: ScriptedNeuron) -> asyncio.Task[None]:
        """As `add`, and does not wait until the registry tells of it."""
        await self._stack.enter_async_context(neuron.served())
        task = asyncio.create_task(neuron.attach(self.address))
        self._stack.push_async_callback(task_ended, task)
        return task

    async def until(self, holds: Callable[[set[str]], bool], seconds: float = 10.0) -> None:
        """Waits until the names of the neurons that have reported satisfy the condition."""
        await eventually(lambda: self._holds(holds), seconds)

    async def _holds(self, holds: Callable[[set[str]], bool]) -> bool:
        from cortex.v1 import operator_service_pb2

        fleet = await self.operator.GetFleet(operator_service_pb2.GetFleetRequest())
        return holds({n.identity.name for n in fleet.neurons if n.report.sequence and not n.lost})

    async def heard(self, neuron: ScriptedNeuron) -> None:
        """Waits until the registry knows the neuron as it is now."""
        from cortex.v1 import operator_service_pb2

        wanted = {i.instance_id: (i.state, i.active_requests) for i in neuron.instances.values()}

        async def is_known() -> bool:
            fleet = await self.operator.GetFleet(operator_service_pb2.GetFleetRequest())
            for member in fleet.neurons:
                if member.identity.name == neuron.name:
                    told = member.report.instances
                    return wanted == {i.instance_id: (i.state, i.active_requests) for i in told}
            return False

        await eventually(is_known)

    async def ensure(self, model: str, **more: Any) -> list[Any]:
        """All steps of a placement.

        Raises:
            FleetError: as the registry said it.
        """
        request = registry_service_pb2.EnsureModelRequest(model=model, **more)
        steps: list[Any] = []
        try:
            async for step in self.registry.EnsureModel(request):
                steps.append(step)  # noqa: PERF401 - what came before an error counts too
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error
        return steps

    async def placed(self, model: str, **more: Any) -> Any:
        """Where it was placed."""
        return (await self.ensure(model, **more))[-1].placed


def document(tmp_path: Any, models: str = "", **registry: Any) -> Document:
    """Settings of a registry for tests: everything quick, nothing outside the folder."""
    catalogue = tmp_path / "models.toml"
    if not catalogue.exists():
        catalogue.write_text(models)
    eviction = {
        "minimum_residency_seconds": 0.0,
        "patience_seconds": 0.3,
        "handover_seconds": 0.05,
        **registry.pop("eviction", {}),
    }
    neurons = registry.pop("neurons", [])
    base = {
        "models": str(catalogue),
        "metrics_listen": "",
        "store": f"sqlite:{tmp_path / 'registry.sqlite'}",
        "lease_seconds": 1.0,
        "settle_seconds": 0.5,
    }
    return Document({"registry": base | registry, "eviction": eviction, "neurons": neurons}, "test")


@contextlib.asynccontextmanager
async def running_fleet(settings: Document) -> AsyncGenerator[Fleet]:
    """A registry with no neurons yet."""
    async with (
        running(settings, listen=LOOPBACK) as address,
        contextlib.AsyncExitStack() as stack,
    ):
        yield Fleet(str(address), stack)

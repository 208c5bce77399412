"""A scripted neuron as a registry sees it, for faults that real neurons do not make."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import grpc

from cortex.v1 import (
    model_pb2,
    neuron_service_pb2,
    neuron_service_pb2_grpc,
    registry_service_pb2,
    registry_service_pb2_grpc,
)
from services.backplane.address import Address
from services.backplane.errors import FleetError, Reason
from services.backplane.metrics import RpcMetrics, new_registry
from services.backplane.rpc.channels import open_channel
from services.backplane.rpc.server import Server

LOOPBACK = Address("127.0.0.1", 0)
MIB = 1 << 20


@dataclasses.dataclass
class Script:
    """How a scripted neuron treats one model.

    Attributes:
        bytes: what an instance takes.
        progress: progress messages before the end.
        gate: loads wait here before they end; set from the start.
        failures: errors of the next loads, first one first.
    """

    bytes: int = 10 * MIB
    progress: int = 2
    gate: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)
    failures: list[FleetError] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()


class ScriptedNeuron(neuron_service_pb2_grpc.NeuronServiceServicer):
    """A neuron without an engine: it keeps books of memory and does what its scripts say."""

    _incarnations = itertools.count(1)

    def __init__(self, name: str, *, capacity: int = 25 * MIB, devices: int = 1) -> None:
        self.name = name
        self.incarnation = f"{name}-{next(self._incarnations)}"
        self.capacity = capacity
        self.device_ids = [f"gpu{i}" for i in range(devices)]
        self.labels: dict[str, str] = {}
        self.stored: list[model_pb2.StoredModel] = []
        self.scripts: dict[str, Script] = {}
        self.instances: dict[str, model_pb2.Instance] = {}
        self.unload_gate = asyncio.Event()
        self.unload_gate.set()
        self.speaks = asyncio.Event()  # while cleared, it says nothing on streams that begin
        self.speaks.set()
        self.loads: list[model_pb2.LoadSpec] = []
        self.cancelled_loads: list[str] = []
        self.unloads: list[str] = []
        self.principals: list[str] = []  # who is charged for the loads
        self.device_use: list[neuron_service_pb2.DeviceUse] = []
        self.epochs: list[int] = []  # of those who ordered all this
        self.cut: list[str] = []
        self.overlaps: list[str] = []
        self.load_cycles = 0
        self.draining = False
        self.address = ""
        self.leases: list[registry_service_pb2.AttachResponse] = []
        self._loading: set[str] = set()
        self._sequence = 0
        self._changed = asyncio.Event()
        self._ids = itertools.count(1)

    # -- what tests do ------------------------------------------------------------------------

    def script(self, model: str) -> Script:
        return self.scripts.setdefault(model, Script())

    def stores(self, model: str, size: int = 8 * MIB, *, source: str = "") -> None:
        self.stored.append(
            model_pb2.StoredModel(
                model=model,
                source=source,
                bytes=size,
                max_context_tokens=2048,
                capabilities=[model_pb2.CAPABILITY_CHAT],
            )
        )
        self.changed()

    def work(self, model: str, active: int) -> None:
        """Sets how many requests a model is decoding."""
        for instance in self.instances.values():
            if instance.spec.model == model:
                instance.active_requests = active
                instance.last_used_at.GetCurrentTime()
        self.changed()

    def state(self, model: str, state: Any) -> None:
        for instance in self.instances.values():
            if instance.spec.model == model:
                instance.state = state
        self.changed()

    def loaded(self) -> list[str]:
        return sorted(
            i.spec.model
            for i in self.instances.values()
            if i.state == model_pb2.INSTANCE_STATE_READY
        )

    def changed(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    # -- what it says -------------------------------------------------------------------------

    def identity(self) -> neuron_service_pb2.NeuronIdentity:
        return neuron_service_pb2.NeuronIdentity(
            name=self.name,
            incarnation_id=self.incarnation,
            address=self.address,
            labels=self.labels,
            engines=["llamacpp"],
        )

    def report(self) -> neuron_service_pb2.NeuronReport:
        self._sequence += 1
        used = dict.fromkeys(self.device_ids, 0)
        for instance in self.instances.values():
            for memory in instance.memory:
                used[memory.device_id] += memory.bytes
        return neuron_service_pb2.NeuronReport(
            sequence=self._sequence,
            devices=[
                model_pb2.Device(
                    device_id=d,
                    kind=model_pb2.DEVICE_KIND_CPU,
                    memory_total_bytes=self.capacity,
                    memory_free_bytes=max(0, self.capacity - used[d]),
                )
                for d in self.device_ids
            ],
            instances=self.instances.values(),
            stored_models=self.stored,
            device_use=self.device_use,
            draining=self.draining,
            workers=[
                neuron_service_pb2.Worker(
                    device_ids=self.device_ids,
                    state=neuron_service_pb2.WORKER_STATE_RUNNING,
                    load_cycles=self.load_cycles,
                )
            ],
        )

    async def attach(self, registry: str) -> None:
        """Attaches for ever, as the daemon does."""
        while True:
            await self.speaks.wait()
            with contextlib.suppress(grpc.aio.AioRpcError):
                await self.attach_once(registry)
            await asyncio.sleep(0.02)

    async def attach_once(self, registry: str) -> None:
        channel = open_channel(registry)
        try:
            stub = registry_service_pb2_grpc.RegistryServiceStub(channel)
            admitted = asyncio.Event()
            async for response in stub.Attach(self._words(admitted)):
                admitted.set()
                self.leases.append(response)
        finally:
            await channel.close()

    async def _words(
        self, admitted: asyncio.Event
    ) -> AsyncIterator[registry_service_pb2.AttachRequest]:
        yield registry_service_pb2.AttachRequest(hello=self.identity())
        # grpc.aio tells of a refusal as an internal error if it is just sending when it comes
        await admitted.wait()
        while True:
            changed = self._changed
            yield registry_service_pb2.AttachRequest(report=self.report())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await changed.wait()

    # -- what it serves -----------------------------------------------------------------------

    async def WatchStatus(
        self, request: Any, context: Any
    ) -> AsyncIterator[neuron_service_pb2.WatchStatusResponse]:
        await self.speaks.wait()
        while True:
            changed = self._changed
            status = neuron_service_pb2.NeuronStatus(identity=self.identity(), report=self.report())
            yield neuron_service_pb2.WatchStatusResponse(status=status)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await changed.wait()

    async def Load(
        self, request: neuron_service_pb2.LoadRequest, context: Any
    ) -> AsyncIterator[neuron_service_pb2.LoadResponse]:
        spec = request.spec
        self.loads.append(spec)
        self.principals.append(request.principal)
        self.epochs.append(request.leader_epoch)
        devices = list(spec.device_ids) or self.device_ids[:1]
        for other in self._loading:
            if other.split("@")[1] in devices:
                self.overlaps.append(f"{other} and {spec.model}")
        marks = {f"{spec.model}@{d}" for d in devices}
        self._loading |= marks
        script = self.script(spec.model)
        try:
            for step in range(script.progress):
                progress = model_pb2.LoadProgress(
                    phase=model_pb2.LOAD_PHASE_LOADING, bytes_done=step, bytes_total=script.progress
                )
                yield neuron_service_pb2.LoadResponse(progress=progress)
            await script.gate.wait()
            yield neuron_service_pb2.LoadResponse(ready=self._loaded(spec, script, devices))
        except asyncio.CancelledError:
            self.cancelled_loads.append(spec.model)
            raise
        finally:
            self._loading -= marks
            self.changed()

    def _loaded(
        self, spec: model_pb2.LoadSpec, script: Script, devices: list[str]
    ) -> model_pb2.Instance:
        if script.failures:
            raise script.failures.pop(0)
        share = script.bytes // len(devices)
        free = {d.device_id: d.memory_free_bytes for d in self.report().devices}
        if any(free[d] < share for d in devices):
            raise FleetError(Reason.OUT_OF_MEMORY, f"{spec.model} needs {script.bytes} bytes.")
        instance = model_pb2.Instance(
            instance_id=f"{self.incarnation}/{next(self._ids)}",
            spec=spec,
            state=model_pb2.INSTANCE_STATE_READY,
            memory=[model_pb2.DeviceMemory(device_id=d, bytes=share) for d in devices],
            max_context_tokens=2048,
            capabilities=[model_pb2.CAPABILITY_CHAT],
        )
        instance.loaded_at.GetCurrentTime()
        self.instances[instance.instance_id] = instance
        self.load_cycles += 1
        return instance

    async def Unload(
        self, request: neuron_service_pb2.UnloadRequest, context: Any
    ) -> AsyncIterator[neuron_service_pb2.UnloadResponse]:
        instance = self.instances.get(request.instance_id)
        if instance is None:
            raise FleetError(Reason.INSTANCE_GONE, "There is no such instance.")
        self.unloads.append(instance.spec.model)
        self.epochs.append(request.leader_epoch)
        instance.state = model_pb2.INSTANCE_STATE_DRAINING
        self.changed()
        while instance.active_requests:
            changed = self._changed  # before the yield: what changes meanwhile must wake us
            draining = neuron_service_pb2.UnloadDraining(active_requests=instance.active_requests)
            yield neuron_service_pb2.UnloadResponse(draining=draining)
            await changed.wait()
        await self.unload_gate.wait()
        del self.instances[request.instance_id]
        self.changed()
        freed = sum(m.bytes for m in instance.memory)
        yield neuron_service_pb2.UnloadResponse(
            unloaded=neuron_service_pb2.Unloaded(instance_id=request.instance_id, freed_bytes=freed)
        )

    async def UpdateInstance(
        self, request: neuron_service_pb2.UpdateInstanceRequest, context: Any
    ) -> neuron_service_pb2.UpdateInstanceResponse:
        instance = self.instances[request.instance_id]
        instance.spec.default_sampling.CopyFrom(request.default_sampling)
        self.epochs.append(request.leader_epoch)
        self.changed()
        return neuron_service_pb2.UpdateInstanceResponse(instance=instance)

    @contextlib.asynccontextmanager
    async def served(self) -> AsyncGenerator[None]:
        """Serves its RPCs on loopback."""
        server = Server(service_names=(), metrics=RpcMetrics(new_registry("neuron"), "neuron"))
        server.add(neuron_service_pb2_grpc.add_NeuronServiceServicer_to_server, self)
        self.address = str(await server.start(LOOPBACK))
        try:
            yield
        finally:
            await server.stop(0)


async def task_ended(task: asyncio.Task[None]) -> None:
    """Cancels a task and waits for its end."""
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def eventually(holds: Callable[[], Any], seconds: float = 10.0) -> None:
    """Polls a condition, which may be a coroutine function, until it holds."""
    async with asyncio.timeout(seconds):
        while True:
            result = holds()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return
            await asyncio.sleep(0.01)

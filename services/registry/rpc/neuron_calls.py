"""Carries orders out over gRPC: one task and one connection per load and per unload."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog

from cortex.v1 import neuron_service_pb2, neuron_service_pb2_grpc
from services.backplane import protobuf_time
from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.backplane.rpc.calls import streaming, unary
from services.backplane.rpc.channels import open_channel
from services.backplane.security.credentials import FleetCredentials
from services.backplane.security.roles import Role
from services.backplane.timeouts import timeout
from services.registry.fleet.records import Instance
from services.registry.placement import errors
from services.registry.placement.orders import (
    LoadOrder,
    OrderListener,
    UnloadOrder,
    UpdateOrder,
)
from services.registry.rpc import decode, encode
from services.registry.rpc.order_queue import CancelLoad, OrderQueue

# Freeing memory and ending a worker, on top of the time that running requests are given.
_RELEASE_SECONDS: Final = 120.0
# What a neuron answers from memory.
_ANSWER_SECONDS: Final = 10.0

log = structlog.get_logger()


class NeuronCalls:
    """Carries out the orders of one leadership, all at once; a neuron has a queue of its own.

    Args:
        orders: what is to be carried out.
        listener: is told how each order goes.
        epoch: of the leadership that orders; neurons refuse those of one that is over.
        may_act: False where another registry may lead; asked before every order.
        wake: called when an order has ended.
        faults: what nobody foresaw; it ends the order that it came from.
    """

    def __init__(
        self,
        orders: OrderQueue,
        listener: OrderListener,
        *,
        epoch: int,
        may_act: Callable[[], bool],
        wake: Callable[[], None],
        faults: Faults,
        credentials: FleetCredentials | None = None,
    ) -> None:
        self._credentials = credentials
        self._orders = orders
        self._listener = listener
        self._epoch = epoch
        self._may_act = may_act
        self._wake = wake
        self._faults = faults
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Carries orders out for ever, none of them waiting for another."""
        while True:
            match await self._orders.next():
                case LoadOrder() as order:
                    self._begin(order.order_id, self._load(order))
                case UnloadOrder() as order:
                    self._begin(order.order_id, self._unload(order))
                case UpdateOrder() as order:
                    self._begin(order.order_id, self._update(order))
                case CancelLoad(order_id):
                    self._cancel(order_id)

    def _cancel(self, order_id: int) -> None:
        """Ends the call; the neuron frees what the load had taken."""
        task = self._tasks.get(order_id)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """Ends all calls; the listener hears nothing of them."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _channel(self, order: LoadOrder | UnloadOrder | UpdateOrder) -> Any:
        return open_channel(order.address, self._credentials, role=Role.NEURON, neuron=order.neuron)

    def _begin(self, order_id: int, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[order_id] = task
        task.add_done_callback(lambda _: self._ended(order_id))

    def _ended(self, order_id: int) -> None:
        self._tasks.pop(order_id, None)
        self._wake()

    def _require_leadership(self) -> None:
        if not self._may_act():
            raise errors.stopped_leading()

    async def _load(self, order: LoadOrder) -> None:
        try:
            self._listener.on_load_ready(order.order_id, await self._loaded(order))
        except FleetError as error:
            self._listener.on_load_failed(order.order_id, error)
        except Exception as error:  # noqa: BLE001 - the root of a task: whoever waits must hear
            fault = self._faults.note("load", error, model=order.profile.model)
            self._listener.on_load_failed(order.order_id, fault)

    async def _loaded(self, order: LoadOrder) -> Instance:
        self._require_leadership()
        request = neuron_service_pb2.LoadRequest(
            spec=encode.load_spec(order),
            detach=order.detach,
            principal=order.principal,
            leader_epoch=self._epoch,
            neighbours=[encode.neighbour_message(one) for one in order.neighbours],
        )
        # a connection of its own: orders are rare, and neurons come back at other addresses
        async with self._channel(order) as channel:
            stub = neuron_service_pb2_grpc.NeuronServiceStub(channel)
            async with streaming(stub.Load(request)) as responses:
                async for response in responses:
                    if response.HasField("ready"):
                        return decode.instance(response.ready)
                    progress = decode.progress(response.progress)
                    self._listener.on_load_progress(order.order_id, progress)
        raise FleetError(Reason.LOAD_FAILED, f"{order.neuron} ended the load without a result.")

    async def _unload(self, order: UnloadOrder) -> None:
        try:
            async with timeout(order.drain_seconds + _RELEASE_SECONDS):
                freed = await self._unloaded(order)
            self._listener.on_unloaded(order.order_id, freed)
        except FleetError as error:
            self._listener.on_unload_failed(order.order_id, error)
        except TimeoutError:
            message = f"{order.neuron} has not freed {order.model} in time."
            self._listener.on_unload_failed(order.order_id, FleetError(Reason.DEADLINE, message))
        except Exception as error:  # noqa: BLE001 - the root of a task: whoever waits must hear
            fault = self._faults.note("unload", error, model=order.model)
            self._listener.on_unload_failed(order.order_id, fault)

    async def _unloaded(self, order: UnloadOrder) -> int:
        self._require_leadership()
        request = neuron_service_pb2.UnloadRequest(
            instance_id=order.instance_id,
            drain_timeout=protobuf_time.duration(order.drain_seconds),
            principal=order.principal,
            leader_epoch=self._epoch,
            following=None if order.following is None else encode.load_spec(order.following),
        )
        async with self._channel(order) as channel:
            stub = neuron_service_pb2_grpc.NeuronServiceStub(channel)
            async with streaming(stub.Unload(request)) as responses:
                async for response in responses:
                    if response.HasField("unloaded"):
                        freed: int = response.unloaded.freed_bytes
                        return freed
        raise FleetError(Reason.INTERNAL, f"{order.neuron} ended the unload without a result.")

    async def _update(self, order: UpdateOrder) -> None:
        request = neuron_service_pb2.UpdateInstanceRequest(
            instance_id=order.instance_id,
            default_sampling=encode.sampling_message(order.profile.sampling),
            leader_epoch=self._epoch,
        )
        try:
            self._require_leadership()
            async with self._channel(order) as channel:
                stub = neuron_service_pb2_grpc.NeuronServiceStub(channel)
                call: Any = stub.UpdateInstance(request, timeout=_ANSWER_SECONDS)
                await unary(call)
        except FleetError as error:  # it is found and ordered again while it is needed
            log.warning("instance.not_updated", neuron_id=order.neuron, reason=error.message)
        except Exception as error:  # noqa: BLE001 - the root of a task
            self._faults.note("update", error, model=order.profile.model)

"""Carries orders out over gRPC: one task per load and per unload."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

import structlog

from cortex.v1 import neuron_service_pb2, neuron_service_pb2_grpc
from services.backplane import protobuf_time
from services.backplane.calls import streaming
from services.backplane.channels import open_channel
from services.backplane.errors import FleetError, Reason
from services.backplane.timeouts import timeout
from services.registry.fleet.records import Instance, LoadProgress
from services.registry.placement import errors
from services.registry.placement.orders import Event, LoadOrder, UnloadOrder
from services.registry.rpc import decode, encode

# Freeing memory and ending a worker, on top of the time that running requests are given.
_RELEASE_SECONDS: Final = 120.0

log = structlog.get_logger()


class OrderListener(Protocol):
    """Who hears how orders went."""

    def on_load_progress(self, order_id: int, progress: LoadProgress) -> None:
        """A sign of life."""

    def on_load_ready(self, order_id: int, instance: Instance) -> None:
        """A load ended well."""

    def on_load_failed(self, order_id: int, error: FleetError) -> None:
        """A load ended badly."""

    def on_unloaded(self, order_id: int, freed_bytes: int) -> None:
        """An unload ended well."""

    def on_unload_failed(self, order_id: int, error: FleetError) -> None:
        """An unload ended badly."""


class NeuronCalls:
    """The orders under way. An `Effects` whose ends go to `ends`, set before the first order.

    Args:
        epoch: of the leadership that orders; neurons refuse those of one that is over.
        may_act: False where another registry may lead; asked before every order.
        record: takes note of events.
        wake: called when an order has ended.
    """

    def __init__(
        self,
        *,
        epoch: int,
        may_act: Callable[[], bool],
        record: Callable[[Event], None],
        wake: Callable[[], None],
    ) -> None:
        self._epoch = epoch
        self._may_act = may_act
        self._record = record
        self._wake = wake
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self.ends: OrderListener | None = None

    def record(self, event: Event) -> None:
        """Takes note of an event."""
        self._record(event)

    def load(self, order: LoadOrder) -> None:
        """Begins a load."""
        self._begin(order.order_id, self._load(order))

    def cancel_load(self, order_id: int) -> None:
        """Abandons a load; the neuron frees what it had taken."""
        task = self._tasks.get(order_id)
        if task is not None:
            task.cancel()

    def unload(self, order: UnloadOrder) -> None:
        """Begins an unload."""
        self._begin(order.order_id, self._unload(order))

    async def close(self) -> None:
        """Ends all calls; nothing comes back for them."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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
        ends = self.ends
        assert ends is not None
        try:
            instance = await self._loaded(order, ends)
        except FleetError as error:
            ends.on_load_failed(order.order_id, error)
        except Exception:  # the root of a task: whoever waits has to hear of it
            log.exception("load.crashed", model=order.profile.model, neuron_id=order.neuron)
            message = "The registry failed while it loaded the model; its log says why."
            ends.on_load_failed(order.order_id, FleetError(Reason.INTERNAL, message))
        else:
            ends.on_load_ready(order.order_id, instance)

    async def _loaded(self, order: LoadOrder, ends: OrderListener) -> Instance:
        self._require_leadership()
        request = neuron_service_pb2.LoadRequest(
            spec=encode.load_spec(order), detach=order.detach, leader_epoch=self._epoch
        )
        # a connection of its own: orders are rare, and neurons come back at other addresses
        async with open_channel(order.address) as channel:
            stub = neuron_service_pb2_grpc.NeuronServiceStub(channel)
            async with streaming(stub.Load(request)) as responses:
                async for response in responses:
                    if response.HasField("ready"):
                        return decode.instance(response.ready)
                    ends.on_load_progress(order.order_id, decode.progress(response.progress))
        raise FleetError(Reason.LOAD_FAILED, f"{order.neuron} ended the load without a result.")

    async def _unload(self, order: UnloadOrder) -> None:
        ends = self.ends
        assert ends is not None
        try:
            async with timeout(order.drain_seconds + _RELEASE_SECONDS):
                freed = await self._unloaded(order)
        except FleetError as error:
            ends.on_unload_failed(order.order_id, error)
        except TimeoutError:
            message = f"{order.neuron} has not freed {order.model} in time."
            ends.on_unload_failed(order.order_id, FleetError(Reason.DEADLINE, message))
        except Exception:  # the root of a task: whoever waits has to hear of it
            log.exception("unload.crashed", model=order.model, neuron_id=order.neuron)
            message = "The registry failed while it unloaded the model; its log says why."
            ends.on_unload_failed(order.order_id, FleetError(Reason.INTERNAL, message))
        else:
            ends.on_unloaded(order.order_id, freed)

    async def _unloaded(self, order: UnloadOrder) -> int:
        self._require_leadership()
        request = neuron_service_pb2.UnloadRequest(
            instance_id=order.instance_id,
            drain_timeout=protobuf_time.duration(order.drain_seconds),
            leader_epoch=self._epoch,
        )
        async with open_channel(order.address) as channel:
            stub = neuron_service_pb2_grpc.NeuronServiceStub(channel)
            async with streaming(stub.Unload(request)) as responses:
                async for response in responses:
                    if response.HasField("unloaded"):
                        freed: int = response.unloaded.freed_bytes
                        return freed
        raise FleetError(Reason.INTERNAL, f"{order.neuron} ended the unload without a result.")

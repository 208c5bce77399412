"""One `Generate` call per generation: the plain transport, which every neuron understands."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
from typing_extensions import override

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2_grpc as neuron_grpc
from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.backplane.rpc.status import from_rpc_error
from services.gateway.transports.credit_window import CreditWindow
from services.gateway.transports.transport import NeuronSequence, NeuronTransport, Sink, token_count


class GenerateTransport(NeuronTransport):
    """Runs each generation as a gRPC call of its own, read by a task of its own.

    Args:
        stub: returns that of the neuron.
        window_tokens: how many tokens are read ahead of the client.
        faults: notes what a sink raises.
    """

    def __init__(
        self,
        stub: Callable[[], neuron_grpc.NeuronServiceAsyncStub],
        *,
        window_tokens: int,
        faults: Faults,
    ) -> None:
        self._faults = faults
        self._stub = stub
        self._window_tokens = window_tokens
        self._running: set[_GenerateCall] = set()

    @override
    def start(self, request: generation.GenerateRequest, sink: Sink) -> NeuronSequence:
        call = _GenerateCall(
            self._stub().Generate(request), sink, self._window_tokens, self._faults
        )
        self._running.add(call)
        call.task.add_done_callback(lambda _: self._running.discard(call))
        return call

    @override
    async def close(self) -> None:
        calls = list(self._running)
        for call in calls:
            call.lose()
        if calls:
            await asyncio.wait({call.task for call in calls})


class _GenerateCall(NeuronSequence):
    """One call, and the task that reads its events."""

    def __init__(self, call: Any, sink: Sink, window_tokens: int, faults: Faults) -> None:
        self._faults = faults
        self._call = call
        self._sink = sink
        self._credit = CreditWindow(window_tokens)
        self._is_over = False
        self.task = asyncio.get_running_loop().create_task(self._run())

    @override
    def cancel(self) -> None:
        self._is_over = True
        self._call.cancel()
        self.task.cancel()

    def lose(self) -> None:
        if not self._is_over:
            self._end(FleetError(Reason.NEURON_LOST, "The gateway has closed the call."))
        self.cancel()

    @override
    def credit(self, tokens: int) -> None:
        self._credit.grant(tokens)

    async def _run(self) -> None:
        try:
            await self._read()
        except grpc.aio.AioRpcError as failure:
            self._end(from_rpc_error(failure))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # gRPC itself cancels the calls of a channel that is closed
            self._end(FleetError(Reason.NEURON_LOST, "The call was cancelled."))
        except Exception as error:  # noqa: BLE001 - a failing sink ends its own call, no other
            self._end(self._faults.note("neuron-call", error))
        finally:
            self._call.cancel()

    async def _read(self) -> None:
        while not self._is_over:
            # gRPC's own flow control holds the neuron back while nobody reads
            await self._credit.available()
            event = await self._call.read()
            if event is grpc.aio.EOF:
                self._end(FleetError(Reason.NEURON_LOST, "The neuron ended without an end."))
                return
            self._hand_over(event)

    def _hand_over(self, event: generation.GenerateResponse) -> None:
        if self._is_over:
            return
        if event.WhichOneof("event") == "finished":
            self._is_over = True
            self._sink.finished(event.finished)
            return
        self._credit.spend(token_count(event))
        if event.HasField("text") and not event.text.logprobs:
            self._sink.text(event.text.text, len(event.text.token_ids))
        else:
            self._sink.event(event)
        self._sink.flush()

    def _end(self, error: FleetError) -> None:
        if not self._is_over:
            self._is_over = True
            with self._faults.contained("neuron-call"):
                self._sink.failed(error)

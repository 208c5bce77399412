"""One bidi stream per neuron that carries all generations in batches: the fast path.

A gRPC message costs about 50 us of Python whatever it carries. So everything that waits to go out
leaves as one message, and one message in carries a whole engine step.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc
import structlog

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from cortex.v1 import neuron_service_pb2_grpc as neuron_grpc
from services.backplane.errors import FleetError, Reason
from services.backplane.status import from_rpc_error, unpack
from services.gateway.transports.transport import NeuronTransport, Sequence, Sink

# Bounds one message: this many requests of at most `links.LARGE_REQUEST_BYTES` each.
_STARTS_PER_MESSAGE: Final = 128

log = structlog.get_logger()


class SessionTransport:
    """Opens a stream at the first generation, and anew at the first one after it was lost.

    A neuron that does not know Session is met with `plain` calls from then on, and what was sent
    to it in vain begins there: such a neuron has run none of it.
    """

    def __init__(
        self,
        stub: neuron_grpc.NeuronServiceAsyncStub,
        *,
        window_tokens: int,
        plain: NeuronTransport,
    ) -> None:
        self._stub = stub
        self._window_tokens = window_tokens
        self._plain = plain
        self._stream: _Stream | None = None

    def start(self, request: generation.GenerateRequest, sink: Sink) -> Sequence:
        """See `NeuronTransport.start`."""
        stream = self._stream
        if stream is None or stream.is_over:
            if stream is not None and stream.is_unknown:
                return self._plain.start(request, sink)
            stream = self._stream = _Stream(self._stub, self._window_tokens, self._plain)
        return stream.start(request, sink)

    async def close(self) -> None:
        """See `NeuronTransport.close`."""
        if self._stream is not None:
            await self._stream.close()


class _Sequence:
    """One generation on a stream."""

    __slots__ = ("_sequence_id", "_stream")

    def __init__(self, stream: _Stream, sequence_id: int) -> None:
        self._stream = stream
        self._sequence_id = sequence_id

    def cancel(self) -> None:
        self._stream.cancel(self._sequence_id)

    def credit(self, tokens: int) -> None:
        self._stream.credit(self._sequence_id, tokens)


class _Stream:
    """One Session call from its first request to its end."""

    def __init__(
        self,
        stub: neuron_grpc.NeuronServiceAsyncStub,
        window_tokens: int,
        plain: NeuronTransport,
    ) -> None:
        self._stub = stub
        self._window_tokens = window_tokens
        self._plain = plain
        # requests that the neuron has not answered yet, until it has shown that it knows Session
        self._unproven: dict[int, generation.GenerateRequest] | None = {}
        self._moved: dict[int, Sequence] = {}
        self.is_unknown = False
        self._sinks: dict[int, Sink] = {}
        self._last_id = 0
        self._starts: dict[int, generation.GenerateRequest] = {}
        self._cancels: list[int] = []
        self._credits: dict[int, int] = {}
        self._loop = asyncio.get_running_loop()
        self._wake: asyncio.Future[None] | None = None
        self.is_over = False
        self._task = self._loop.create_task(self._run())

    def start(self, request: generation.GenerateRequest, sink: Sink) -> Sequence:
        self._last_id += 1
        self._sinks[self._last_id] = sink
        self._starts[self._last_id] = request
        if self._unproven is not None:
            self._unproven[self._last_id] = request
        self._poke()
        return _Sequence(self, self._last_id)

    def cancel(self, sequence_id: int) -> None:
        if self._sinks.pop(sequence_id, None) is None:
            moved = self._moved.pop(sequence_id, None)
            if moved is not None:
                moved.cancel()
            return
        self._credits.pop(sequence_id, None)
        if self._starts.pop(sequence_id, None) is None:
            self._cancels.append(sequence_id)
            self._poke()

    def credit(self, sequence_id: int, tokens: int) -> None:
        if sequence_id in self._sinks:
            self._credits[sequence_id] = self._credits.get(sequence_id, 0) + tokens
            self._poke()
        elif sequence_id in self._moved:
            self._moved[sequence_id].credit(tokens)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait({self._task})

    def _poke(self) -> None:
        wake = self._wake
        if wake is not None and not wake.done():
            wake.set_result(None)

    async def _run(self) -> None:
        """Owns the call; whatever ends it ends every sequence that is left."""
        error = FleetError(Reason.NEURON_LOST, "The neuron closed its session.")
        call: Any = self._stub.Session()
        writer = self._loop.create_task(self._write(call))
        try:
            await self._read(call)
        except grpc.aio.AioRpcError as failure:
            error = from_rpc_error(failure)
        except asyncio.CancelledError:
            error = FleetError(Reason.NEURON_LOST, "The gateway has closed the session.")
        finally:
            self.is_over = True
            writer.cancel()
            call.cancel()
            if error.reason is Reason.NOT_SUPPORTED and self._unproven is not None:
                self._move_all(self._unproven)
            else:
                self._fail_all(error)

    async def _read(self, call: Any) -> None:
        read = call.read
        end = grpc.aio.EOF
        while (batch := await read()) is not end:
            self._apply(batch)

    async def _write(self, call: Any) -> None:
        try:
            while True:
                if not (self._starts or self._cancels or self._credits):
                    self._wake = self._loop.create_future()
                    await self._wake
                    self._wake = None
                await call.write(self._take())
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return  # the reader sees the same end and says what it means
        except Exception:  # the root of a task; without a writer the stream is of no use
            log.exception("session.write_failed")
            call.cancel()

    def _take(self) -> neuron.SessionRequest:
        """Everything that waits, as one message."""
        message = neuron.SessionRequest()
        starts = self._starts
        for sequence_id in list(starts)[:_STARTS_PER_MESSAGE]:
            message.starts.add(
                sequence_id=sequence_id,
                request=starts.pop(sequence_id),
                credit_tokens=self._window_tokens,
            )
        if self._cancels:
            message.cancelled_sequence_ids.extend(self._cancels)
            self._cancels.clear()
        for sequence_id in list(self._credits) if self._credits else ():
            if sequence_id not in starts:
                message.credits.add(sequence_id=sequence_id, tokens=self._credits.pop(sequence_id))
        return message

    def _apply(self, batch: neuron.SessionResponse) -> None:
        """Hands one message of the neuron to the sinks, in the contract's order."""
        self._unproven = None
        sinks = self._sinks
        touched: list[tuple[int, Sink]] = []
        for item in batch.events:
            sink = sinks.get(item.sequence_id)
            if sink is not None:
                try:
                    sink.event(item.event)
                except Exception:  # noqa: BLE001 - one sink must not end the stream of all
                    self._give_up(item.sequence_id, sink)
                touched.append((item.sequence_id, sink))
        for sequence_id, text, tokens in zip(
            batch.text_sequence_ids, batch.texts, batch.text_token_counts, strict=True
        ):
            sink = sinks.get(sequence_id)
            if sink is not None:
                try:
                    sink.text(text, tokens)
                except Exception:  # noqa: BLE001 - likewise
                    self._give_up(sequence_id, sink)
                touched.append((sequence_id, sink))
        for end in batch.ends:
            self._end(end)
        for sequence_id, sink in touched:
            try:
                sink.flush()
            except Exception:  # noqa: BLE001 - likewise
                self._give_up(sequence_id, sink)

    def _end(self, end: neuron.SequenceEnd) -> None:
        sink = self._sinks.pop(end.sequence_id, None)
        if sink is None:
            return
        self._credits.pop(end.sequence_id, None)
        if end.WhichOneof("end") == "finished":
            try:
                sink.finished(end.finished)
            except Exception:  # noqa: BLE001 - likewise
                self._give_up(end.sequence_id, sink)
        else:
            sink.failed(unpack(end.failed))

    def _give_up(self, sequence_id: int, sink: Sink) -> None:
        log.error("sink.failed", sequence_id=sequence_id, exc_info=True)  # noqa: LOG014
        self.cancel(sequence_id)
        sink.failed(FleetError(Reason.INTERNAL, "The gateway failed; its log says why."))

    def _move_all(self, requests: dict[int, generation.GenerateRequest]) -> None:
        """Begins everything anew as plain calls."""
        log.info("session.unknown_to_neuron", sequences=len(self._sinks))
        self.is_unknown = True
        sinks, self._sinks = self._sinks, {}
        self._starts.clear()
        for sequence_id, sink in sinks.items():
            self._moved[sequence_id] = self._plain.start(requests[sequence_id], sink)

    def _fail_all(self, error: FleetError) -> None:
        sinks, self._sinks = self._sinks, {}
        self._starts.clear()
        for sink in sinks.values():
            sink.failed(error)

"""One `Session` call to a neuron, from its first request to its end.

Its generations begin and end independently; what happens to one never ends the others.
"""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from google.protobuf.message import DecodeError
from typing_extensions import override

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.backplane.rpc.status import unpack
from services.gateway.transports.connect import Connect
from services.gateway.transports.grpc_call import BidiCall, CallSink
from services.gateway.transports.session_outbox import SessionOutbox
from services.gateway.transports.transport import NeuronSequence, NeuronTransport, Sink

_METHOD: Final = "/cortex.v1.NeuronService/Session"

log = structlog.get_logger()


class _SessionSequence(NeuronSequence):
    """One generation on a stream."""

    __slots__ = ("_sequence_id", "_stream")

    def __init__(self, stream: SessionStream, sequence_id: int) -> None:
        self._stream = stream
        self._sequence_id = sequence_id

    @override
    def cancel(self) -> None:
        self._stream.cancel(self._sequence_id)

    @override
    def credit(self, tokens: int) -> None:
        self._stream.credit(self._sequence_id, tokens)


class SessionStream(CallSink):
    """One `Session` call from its first request to its end.

    Args:
        address: of the neuron.
        window_tokens: how many tokens of one generation the neuron may send ahead of its client.
        plain: takes over all requests where the neuron turns out not to know `Session`.
        faults: notes what a sink raises, which ends its own generation and no other.
        connect: opens the call.

    Attributes:
        is_over: the call has ended; nothing can be started on it any more.
        is_unknown: it ended because the neuron does not know `Session`.
    """

    def __init__(
        self,
        address: str,
        *,
        window_tokens: int,
        plain: NeuronTransport,
        faults: Faults,
        connect: Connect,
    ) -> None:
        self._connect = connect
        self._faults = faults
        self._plain = plain
        # requests that the neuron has not answered yet, until it has shown that it knows Session
        self._unproven: dict[int, generation.GenerateRequest] | None = {}
        self._moved: dict[int, NeuronSequence] = {}
        self.is_unknown = False
        self._sinks: dict[int, Sink] = {}
        # what has come and is not settled before the last message that is there
        self._touched: dict[int, Sink] = {}
        self._ends: list[neuron.SequenceEnd] = []
        self._last_id = 0
        self._outbox = SessionOutbox(window_tokens=window_tokens)
        self._loop = asyncio.get_running_loop()
        self._is_poked = False
        self.is_over = False
        self._call: BidiCall | None = None
        self._opening = self._loop.create_task(self._open(address))

    def start(self, request: generation.GenerateRequest, sink: Sink) -> NeuronSequence:
        """Begins a generation; the request leaves with what else this turn of the loop sends."""
        self._last_id += 1
        self._sinks[self._last_id] = sink
        self._outbox.start(self._last_id, request)
        if self._unproven is not None:
            self._unproven[self._last_id] = request
        self._poke()
        return _SessionSequence(self, self._last_id)

    def cancel(self, sequence_id: int) -> None:
        """Ends a generation that nobody reads any more; its sink hears nothing after this."""
        if self._sinks.pop(sequence_id, None) is None:
            moved = self._moved.pop(sequence_id, None)
            if moved is not None:
                moved.cancel()
            return
        if self._outbox.cancel(sequence_id):
            self._poke()

    def credit(self, sequence_id: int, tokens: int) -> None:
        """Lets the neuron send this many more tokens of a generation."""
        if sequence_id in self._sinks:
            self._outbox.credit(sequence_id, tokens)
            self._poke()
        elif sequence_id in self._moved:
            self._moved[sequence_id].credit(tokens)

    async def close(self) -> None:
        """Ends the call; generations that still run fail with NEURON_LOST."""
        self._opening.cancel()
        await asyncio.wait({self._opening})
        if self._call is not None:
            self._call.cancel()
        self.ended(FleetError(Reason.NEURON_LOST, "The gateway has closed the session."))

    async def _open(self, address: str) -> None:
        try:
            self._call = await self._connect(address, _METHOD, self, self._faults)
        except FleetError as failure:
            self.ended(failure)
        except Exception as error:  # noqa: BLE001 - the root of a task: nobody must wait for ever
            self.ended(self._faults.note("neuron-session", error))
        else:
            self._flush()

    # The call's side.

    @override
    def message(self, data: bytes) -> None:
        try:
            batch = neuron.SessionResponse.FromString(data)
        except DecodeError:
            batch = None
        if batch is None or not _is_even(batch):
            self._break("The neuron sent what is no message of a session.")
            return
        self._unproven = None
        self._hand_out(batch)
        self._ends += batch.ends

    @override
    def caught_up(self) -> None:
        """Flushes the sinks that go on, then ends those that have finished.

        In this order, because clients wait for the tokens, and an end brings a new request.
        """
        touched, self._touched = self._touched, {}
        ends, self._ends = self._ends, []
        for end in ends:
            if end.WhichOneof("end") == "finished":
                touched.pop(end.sequence_id, None)  # what it holds leaves together with its end
        for sequence_id, sink in touched.items():
            try:
                sink.flush()
            except Exception as error:  # noqa: BLE001 - one sink must not end the stream of all
                self._give_up(sequence_id, sink, error)
        for end in ends:
            self._end(end)

    @override
    def writable(self) -> None:
        self._flush()

    @override
    def ended(self, error: FleetError | None) -> None:
        """Ends every generation that still runs."""
        if self.is_over:
            return
        self.is_over = True
        error = error or FleetError(Reason.NEURON_LOST, "The neuron closed its session.")
        if error.reason is Reason.NOT_SUPPORTED and self._unproven is not None:
            self._move_all(self._unproven)
        else:
            self._fail_all(error)

    def _break(self, message: str) -> None:
        self.caught_up()
        if self._call is not None:
            self._call.cancel()
        self.ended(FleetError(Reason.NEURON_LOST, message))

    # Out: what was asked for in one turn of the loop leaves together.

    def _poke(self) -> None:
        if not self._is_poked:
            self._is_poked = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Sends what waits, unless the neuron is slow to take what was sent before."""
        self._is_poked = False
        call = self._call
        while call is not None and self._outbox and call.is_writable:
            try:
                call.send(self._outbox.take())
            except Exception as error:  # noqa: BLE001 - the root of a callback
                self._fail_starts(self._outbox.next_starts(), error)

    def _fail_starts(self, starting: list[int], error: Exception) -> None:
        """Ends what could not be sent; where that was no request, the whole session."""
        self._faults.note("neuron-session", error)
        if not starting:
            self._break("The gateway could not write to its session; its log says why.")
        self._outbox.drop_starts(starting)
        for sequence_id in starting:
            sink = self._sinks.pop(sequence_id)
            self._tell(sink, FleetError(Reason.INTERNAL, "The request could not be sent."))

    def _hand_out(self, batch: neuron.SessionResponse) -> None:
        """Tells the sinks what has come for them, in the contract's order."""
        sinks, touched = self._sinks, self._touched
        for item in batch.events:
            sink = sinks.get(item.sequence_id)
            if sink is not None:
                touched[item.sequence_id] = sink
                try:
                    sink.event(item.event)
                except Exception as error:  # noqa: BLE001 - likewise
                    self._give_up(item.sequence_id, sink, error)
        token_ids = list(batch.text_token_ids)
        behind = 0
        for sequence_id, text, tokens in zip(
            batch.text_sequence_ids, batch.texts, batch.text_token_counts, strict=True
        ):
            before, behind = behind, behind + tokens
            sink = sinks.get(sequence_id)
            if sink is not None:
                touched[sequence_id] = sink
                try:
                    sink.text(text, tokens, token_ids[before:behind])
                except Exception as error:  # noqa: BLE001 - likewise
                    self._give_up(sequence_id, sink, error)

    def _end(self, end: neuron.SequenceEnd) -> None:
        sink = self._sinks.pop(end.sequence_id, None)
        if sink is None:
            return
        self._outbox.forget(end.sequence_id)
        try:
            if end.WhichOneof("end") == "finished":
                sink.finished(end.finished)
            else:
                sink.failed(unpack(end.failed))
        except Exception as error:  # noqa: BLE001 - likewise
            self._give_up(end.sequence_id, sink, error)

    def _give_up(self, sequence_id: int, sink: Sink, error: Exception) -> None:
        self.cancel(sequence_id)
        self._tell(sink, self._faults.note("neuron-session", error))

    def _tell(self, sink: Sink, error: FleetError) -> None:
        with self._faults.contained("neuron-session"):
            sink.failed(error)

    def _move_all(self, requests: dict[int, generation.GenerateRequest]) -> None:
        """Begins everything anew as plain calls."""
        log.info("session.unknown_to_neuron", sequences=len(self._sinks))
        self.is_unknown = True
        sinks, self._sinks = self._sinks, {}
        self._outbox.clear()
        for sequence_id, sink in sinks.items():
            try:
                self._moved[sequence_id] = self._plain.start(requests[sequence_id], sink)
            except Exception as error:  # noqa: BLE001 - likewise
                self._tell(sink, self._faults.note("neuron-session", error))

    def _fail_all(self, error: FleetError) -> None:
        sinks, self._sinks = self._sinks, {}
        self._outbox.clear()
        for sink in sinks.values():
            self._tell(sink, error)


def _is_even(batch: neuron.SessionResponse) -> bool:
    """True where each text of a batch has its sequence, its number of tokens, and these tokens."""
    counts = batch.text_token_counts
    if not len(batch.text_sequence_ids) == len(batch.texts) == len(counts):
        return False
    return not batch.text_token_ids or len(batch.text_token_ids) == sum(counts)

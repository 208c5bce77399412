"""One Session: many generations over one stream, in batches.

While a message is being written, what happens meanwhile is packed into the next: plain text by
column, merged per sequence; everything else as events. A message is built only when the transport
has taken the one before, so a slow caller gets fewer and larger messages, and its credit bounds
what is held for it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Any, Final

import structlog
from typing_extensions import override

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.backplane.rpc.status import pack
from services.neuron.engine_api.events import TokenLogprob
from services.neuron.serving.event_sink import EventSink
from services.neuron.serving.generation import Generation
from services.neuron.serving.generations import Generations
from services.neuron.serving.pending import Pending

_MOST_SEQUENCES: Final = 8_192

log = structlog.get_logger()


@dataclasses.dataclass(eq=False, slots=True)
class _Beginning:
    """A sequence whose prompt is being built.

    Attributes:
        task: builds it.
        credit: tokens that were granted meanwhile.
    """

    task: asyncio.Task[None] = dataclasses.field(init=False)
    credit: int = 0


class SessionStream:
    """One `Session` call of a gateway: many generations over one stream, in batches."""

    def __init__(self, generations: Generations, faults: Faults) -> None:
        self._generations = generations
        self._faults = faults
        self._pending = Pending()
        self._wake = asyncio.Event()
        self._running: dict[int, Generation | None] = {}
        self._beginning: dict[int, _Beginning] = {}
        self._is_closing = False

    async def serve(
        self, requests: AsyncIterator[neuron.SessionRequest]
    ) -> AsyncGenerator[neuron.SessionResponse]:
        """Runs what is asked until the caller ends its side and all sequences have ended."""
        reading = asyncio.create_task(self._read(requests))
        reading.add_done_callback(lambda _: self._wake.set())
        try:
            while True:
                if self._pending:
                    yield self._message()
                    continue
                # Where nobody can cancel any more, nothing may run on.
                is_deaf = reading.done() and (reading.cancelled() or reading.exception())
                if self._is_closing or is_deaf or (reading.done() and not self._running):
                    break
                self._wake.clear()
                await self._wake.wait()
            if reading.done() and not reading.cancelled():
                reading.result()
        finally:
            reading.cancel()
            for beginning in self._beginning.values():
                beginning.task.cancel()
            for running in self._running.values():
                if running is not None:
                    running.cancel()

    def close(self) -> None:
        """Ends the stream after what waits has been sent."""
        self._is_closing = True
        self._wake.set()

    async def _read(self, requests: AsyncIterator[neuron.SessionRequest]) -> None:
        async for request in requests:
            for sequence_id in request.cancelled_sequence_ids:
                self._do(sequence_id, self._cancel, sequence_id)
            for start in request.starts:
                self._do(start.sequence_id, self._start, start)
            for credit in request.credits:
                self._do(credit.sequence_id, self._grant, credit)

    def _do(self, sequence_id: int, work: Callable[[Any], None], what: Any) -> None:
        """Does something for one sequence; whatever it raises ends that sequence alone."""
        try:
            work(what)
        except FleetError as error:
            self._fail(sequence_id, error)
        except Exception as error:  # noqa: BLE001 - the others go on
            self._fail(sequence_id, self._faults.note("session", error, sequence_id=sequence_id))

    def _fail(self, sequence_id: int, error: FleetError) -> None:
        with self._faults.contained("session", sequence_id=sequence_id):
            self._cancel(sequence_id)
        self.add_end(neuron.SequenceEnd(sequence_id=sequence_id, failed=pack(error)))

    def _message(self) -> neuron.SessionResponse:
        """The next message, without the sequences whose text cannot be sent: they fail."""
        try:
            return self._pending.take()
        except Exception as error:
            faulty = self._pending.unsendable()
            if not faulty:
                raise
            failure = self._faults.note("session.message", error)
            for sequence_id in faulty:
                self._fail(sequence_id, failure)
            return self._pending.take()

    def _grant(self, credit: neuron.SessionCredit) -> None:
        running = self._running.get(credit.sequence_id)
        beginning = self._beginning.get(credit.sequence_id)
        if running is not None:
            running.grant(credit.tokens)
        elif beginning is not None:
            beginning.credit += credit.tokens

    def _cancel(self, sequence_id: int) -> None:
        beginning = self._beginning.pop(sequence_id, None)
        if beginning is not None:
            beginning.task.cancel()
        running = self._running.pop(sequence_id, None)
        if running is not None:
            running.cancel()
        self._pending.forget(sequence_id)
        self._wake.set()

    def _start(self, start: neuron.SessionStart) -> None:
        sequence_id = start.sequence_id
        sink = _SequenceSink(self, sequence_id)
        if sequence_id in self._running:
            # The sequence that has the number is not to blame; the newcomer cannot be answered.
            log.error("session.sequence_repeated", sequence_id=sequence_id)
            return
        self._running[sequence_id] = None
        if len(self._running) > _MOST_SEQUENCES:
            raise FleetError(Reason.QUEUE_FULL, "Too many sequences in one session.")
        beginning = _Beginning()
        beginning.task = asyncio.create_task(self._begin(start, sink, beginning))
        self._beginning[sequence_id] = beginning

    async def _begin(
        self, start: neuron.SessionStart, sink: _SequenceSink, beginning: _Beginning
    ) -> None:
        try:
            running = await self._generations.begin(
                start.request, sink, credit_tokens=start.credit_tokens
            )
            self._running[start.sequence_id] = running
            if beginning.credit:
                running.grant(beginning.credit)
        except FleetError as error:
            sink.failed(error)
        except Exception as error:  # noqa: BLE001 - the caller has to hear of it
            sink.failed(self._faults.note("session.begin", error))
        finally:
            if self._beginning.get(start.sequence_id) is beginning:
                del self._beginning[start.sequence_id]

    # What its sinks say.

    def add_event(self, sequence_id: int, event: generation.GenerateResponse) -> None:
        """An event of a sequence."""
        self._pending.event(sequence_id, event)
        self._wake.set()

    def add_text(
        self,
        sequence_id: int,
        text: str,
        token_ids: Sequence[int],
        logprobs: Sequence[TokenLogprob],
    ) -> None:
        """Plain text of a sequence."""
        self._pending.text(sequence_id, text, token_ids, logprobs)
        self._wake.set()

    def add_end(self, end: neuron.SequenceEnd) -> None:
        """The end of a sequence."""
        self._running.pop(end.sequence_id, None)
        self._pending.end(end)
        self._wake.set()


@dataclasses.dataclass(frozen=True, slots=True)
class _SequenceSink(EventSink):
    """One sequence's way into the session's next message."""

    session: SessionStream
    sequence_id: int

    @override
    def event(self, event: generation.GenerateResponse, tokens: int = 0) -> None:
        self.session.add_event(self.sequence_id, event)

    @override
    def text(self, text: str, token_ids: Sequence[int], logprobs: Sequence[TokenLogprob]) -> None:
        self.session.add_text(self.sequence_id, text, token_ids, logprobs)

    @override
    def finished(self, event: generation.GenerationFinished) -> None:
        end = neuron.SequenceEnd(sequence_id=self.sequence_id, finished=event)
        self.session.add_end(end)

    @override
    def failed(self, error: FleetError) -> None:
        end = neuron.SequenceEnd(sequence_id=self.sequence_id, failed=pack(error))
        self.session.add_end(end)

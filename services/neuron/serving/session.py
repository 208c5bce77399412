"""One Session: many generations over one stream, in batches.

While a message is being written, what happens meanwhile is packed into the next: plain text by
column, merged per sequence; everything else as events. A message is built only when the transport
has taken the one before, so a slow caller gets fewer and larger messages, and its credit bounds
what is held for it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Final

import structlog
from typing_extensions import override

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import FleetError, Reason
from services.backplane.rpc.status import pack
from services.neuron.engine_api.events import TokenLogprob
from services.neuron.serving import convert
from services.neuron.serving.event_sink import EventSink
from services.neuron.serving.generation import Generation
from services.neuron.serving.generations import Generations
from services.neuron.serving.prompt import is_large

_MOST_SEQUENCES: Final = 8_192
_DELTAS: Final = frozenset({"text", "reasoning", "tool_call"})

log = structlog.get_logger()


class Pending:
    """What waits for the next message. Events, texts and ends keep their order per sequence."""

    def __init__(self) -> None:
        self._events: list[neuron.SequenceEvent] = []
        self._texts: dict[int, tuple[list[str], list[int]]] = {}
        self._ends: list[neuron.SequenceEnd] = []
        # Sequences whose deltas of this message are all events: columns are applied after events.
        self._as_events: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self._events or self._texts or self._ends)

    def event(self, sequence_id: int, event: generation.GenerateResponse) -> None:
        """Adds an event."""
        if event.WhichOneof("event") in _DELTAS:
            self._deltas_as_events(sequence_id)
        self._events.append(neuron.SequenceEvent(sequence_id=sequence_id, event=event))

    def text(
        self,
        sequence_id: int,
        text: str,
        token_ids: Sequence[int],
        logprobs: Sequence[TokenLogprob],
    ) -> None:
        """Adds plain text: to its column, unless it has to be an event."""
        if logprobs:
            self._deltas_as_events(sequence_id)
        if sequence_id in self._as_events:
            self.event(sequence_id, _text_event(text, token_ids, logprobs))
            return
        waiting = self._texts.get(sequence_id)
        if waiting is None:
            self._texts[sequence_id] = ([text], list(token_ids))
        else:
            waiting[0].append(text)
            waiting[1].extend(token_ids)

    def end(self, end: neuron.SequenceEnd) -> None:
        """Adds the end of a sequence."""
        self._ends.append(end)

    def forget(self, sequence_id: int) -> None:
        """Drops all that waits of a sequence."""
        self._texts.pop(sequence_id, None)
        self._events = [each for each in self._events if each.sequence_id != sequence_id]
        self._ends = [each for each in self._ends if each.sequence_id != sequence_id]

    def take(self) -> neuron.SessionResponse:
        """The next message; nothing waits after it."""
        events, texts, ends = self._events, self._texts, self._ends
        self._events, self._texts, self._ends = [], {}, []
        self._as_events.clear()
        return neuron.SessionResponse(
            events=events,
            text_sequence_ids=texts,
            texts=["".join(parts) for parts, _ in texts.values()],
            text_token_counts=[len(ids) for _, ids in texts.values()],
            ends=ends,
        )

    def _deltas_as_events(self, sequence_id: int) -> None:
        """From here to the end of the message this sequence's deltas are events, the first too."""
        self._as_events.add(sequence_id)
        waiting = self._texts.pop(sequence_id, None)
        if waiting is not None:
            event = _text_event("".join(waiting[0]), waiting[1], ())
            self._events.append(neuron.SequenceEvent(sequence_id=sequence_id, event=event))


class SessionStream:
    """One caller's stream."""

    def __init__(self, generations: Generations) -> None:
        self._generations = generations
        self._pending = Pending()
        self._wake = asyncio.Event()
        self._running: dict[int, Generation | None] = {}
        self._beginning: dict[int, asyncio.Task[None]] = {}
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
                    yield self._pending.take()
                    continue
                if self._is_closing or (reading.done() and not self._running):
                    break
                self._wake.clear()
                await self._wake.wait()
            if reading.done() and not reading.cancelled():
                reading.result()
        finally:
            reading.cancel()
            for task in self._beginning.values():
                task.cancel()
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
                self._cancel(sequence_id)
            for start in request.starts:
                self._start(start)
            for credit in request.credits:
                running = self._running.get(credit.sequence_id)
                if running is not None:
                    running.grant(credit.tokens)

    def _cancel(self, sequence_id: int) -> None:
        beginning = self._beginning.pop(sequence_id, None)
        if beginning is not None:
            beginning.cancel()
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
            sink.failed(FleetError(Reason.QUEUE_FULL, "Too many sequences in one session."))
        elif is_large(start.request):
            task = asyncio.create_task(self._begin_large(start, sink))
            self._beginning[sequence_id] = task
        else:
            self._begin(start, sink)

    def _begin(self, start: neuron.SessionStart, sink: _SequenceSink) -> None:
        try:
            self._running[start.sequence_id] = self._generations.begin(
                start.request, sink, credit_tokens=start.credit_tokens
            )
        except FleetError as error:
            sink.failed(error)

    async def _begin_large(self, start: neuron.SessionStart, sink: _SequenceSink) -> None:
        try:
            self._running[start.sequence_id] = await self._generations.begin_large(
                start.request, sink, credit_tokens=start.credit_tokens
            )
        except FleetError as error:
            sink.failed(error)
        finally:
            if self._beginning.get(start.sequence_id) is asyncio.current_task():
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


def _text_event(
    text: str, token_ids: Sequence[int], logprobs: Sequence[TokenLogprob]
) -> generation.GenerateResponse:
    return generation.GenerateResponse(text=convert.text_delta(text, token_ids, logprobs))

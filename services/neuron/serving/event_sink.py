"""Where a generation's events go: to one reader of its own, or into a session's next message."""

from __future__ import annotations

import asyncio
import collections
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from typing_extensions import override

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError
from services.neuron.engine_api.events import TokenLogprob
from services.neuron.serving import convert


class EventSink(Protocol):
    """Takes the events of one generation, in order. Never waits and never raises."""

    def event(self, event: generation.GenerateResponse, tokens: int = 0) -> None:
        """Any event but plain text and the end; `tokens` are those behind it."""
        ...

    def text(self, text: str, token_ids: Sequence[int], logprobs: Sequence[TokenLogprob]) -> None:
        """New plain text: the hot path."""
        ...

    def finished(self, event: generation.GenerationFinished) -> None:
        """The generation ended well; this is the last event."""
        ...

    def failed(self, error: FleetError) -> None:
        """The generation failed; this is the last event."""
        ...


class ReaderSink(EventSink):
    """Holds events for one reader, merging text that it has not taken yet.

    What it holds is bounded by the generation's credit, which is given back as the reader takes.
    """

    def __init__(self) -> None:
        self._events: collections.deque[tuple[generation.GenerateResponse, int]] = (
            collections.deque()
        )
        self._wake = asyncio.Event()
        self._is_over = False
        self._error: FleetError | None = None

    @override
    def event(self, event: generation.GenerateResponse, tokens: int = 0) -> None:
        """Queues an event. Of waiting news of one kind only the newest counts."""
        kind = event.WhichOneof("event")
        if self._events and kind in {"queued", "prefill"}:
            last, _ = self._events[-1]
            if last.WhichOneof("event") == kind:
                self._events.pop()
        self._put(event, tokens)

    @override
    def text(self, text: str, token_ids: Sequence[int], logprobs: Sequence[TokenLogprob]) -> None:
        """Queues text, or adds it to text that is still queued."""
        if self._events:
            last, tokens = self._events[-1]
            if last.HasField("text"):
                last.text.text += text
                last.text.token_ids.extend(token_ids)
                last.text.logprobs.extend(convert.logprob(each) for each in logprobs)
                self._events[-1] = (last, tokens + len(token_ids))
                return
        delta = convert.text_delta(text, token_ids, logprobs)
        self._put(generation.GenerateResponse(text=delta), len(token_ids))

    @override
    def finished(self, event: generation.GenerationFinished) -> None:
        self._put(generation.GenerateResponse(finished=event), 0)
        self._is_over = True

    @override
    def failed(self, error: FleetError) -> None:
        """Ends the reading with an error, behind what is queued."""
        self._error = error
        self._is_over = True
        self._wake.set()

    async def read(self) -> AsyncIterator[tuple[generation.GenerateResponse, int]]:
        """The events, each with the number of tokens behind it.

        Raises:
            FleetError: the generation failed.
        """
        while True:
            while self._events:
                yield self._events.popleft()
            if self._is_over:
                break
            self._wake.clear()
            await self._wake.wait()
        if self._error is not None:
            raise self._error

    def _put(self, event: generation.GenerateResponse, tokens: int) -> None:
        self._events.append((event, tokens))
        self._wake.set()

"""Generate and Session as one thing: run a request, get its events and its end."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Protocol

import grpc

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.errors import FleetError
from services.backplane.rpc.status import from_rpc_error, unpack
from tests.doubles.neuron_host import PATIENCE_SECONDS, NeuronHost

CREDIT = 1 << 20


class Stream(Protocol):
    """One generation as its caller sees it."""

    def __aiter__(self) -> AsyncIterator[generation.GenerateResponse]: ...

    async def cancel(self) -> None: ...


class Transport(Protocol):
    def start(self, request: generation.GenerateRequest) -> Stream: ...


class UnaryTransport:
    """A Generate call for each request."""

    def __init__(self, host: NeuronHost) -> None:
        self._host = host

    def start(self, request: generation.GenerateRequest) -> Stream:
        return _UnaryStream(self._host.stub.Generate(request))


class _UnaryStream:
    def __init__(self, call: Any) -> None:
        self._call = call

    async def __aiter__(self) -> AsyncIterator[generation.GenerateResponse]:
        try:
            async for event in self._call:
                yield event
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error

    async def cancel(self) -> None:
        self._call.cancel()


class SessionTransport:
    """All requests over one stream; columns and ends are turned back into events."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._last = 0
        self._outbox: asyncio.Queue[neuron.SessionRequest] = asyncio.Queue()
        self._inboxes: dict[int, asyncio.Queue[Any]] = {}
        self.messages: list[neuron.SessionResponse] = []

    def start(self, request: generation.GenerateRequest, *, credit: int = CREDIT) -> SessionStream:
        self._last += 1
        inbox = self._inboxes[self._last] = asyncio.Queue()
        start = neuron.SessionStart(sequence_id=self._last, request=request, credit_tokens=credit)
        self.send(neuron.SessionRequest(starts=[start]))
        return SessionStream(self, self._last, inbox)

    def send(self, request: neuron.SessionRequest) -> None:
        self._outbox.put_nowait(request)

    async def write(self) -> None:
        while True:
            await self._call.write(await self._outbox.get())

    async def read(self) -> None:
        async for message in self._call:
            self.messages.append(message)
            for sequenced in message.events:
                self._put(sequenced.sequence_id, sequenced.event)
            columns = zip(
                message.text_sequence_ids, message.texts, message.text_token_counts, strict=True
            )
            for sequence_id, text, count in columns:
                delta = generation.TextDelta(text=text, token_ids=[0] * count)
                self._put(sequence_id, generation.GenerateResponse(text=delta))
            for end in message.ends:
                self._put(end.sequence_id, end)

    def _put(self, sequence_id: int, item: Any) -> None:
        self._inboxes[sequence_id].put_nowait(item)


@dataclasses.dataclass
class SessionStream:
    session: SessionTransport
    sequence_id: int
    inbox: asyncio.Queue[Any]

    async def __aiter__(self) -> AsyncIterator[generation.GenerateResponse]:
        while True:
            item = await self.inbox.get()
            if not isinstance(item, neuron.SequenceEnd):
                yield item
            elif item.HasField("finished"):
                yield generation.GenerateResponse(finished=item.finished)
                return
            else:
                raise unpack(item.failed)

    def grant(self, tokens: int) -> None:
        credit = neuron.SessionCredit(sequence_id=self.sequence_id, tokens=tokens)
        self.session.send(neuron.SessionRequest(credits=[credit]))

    async def cancel(self) -> None:
        self.session.send(neuron.SessionRequest(cancelled_sequence_ids=[self.sequence_id]))


@contextlib.asynccontextmanager
async def session_of(host: NeuronHost) -> AsyncGenerator[SessionTransport]:
    """A Session that is open while the context is."""
    call = host.stub.Session()
    transport = SessionTransport(call)
    tasks = [asyncio.create_task(transport.write()), asyncio.create_task(transport.read())]
    try:
        yield transport
    finally:
        call.cancel()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def transport_of(kind: str, host: NeuronHost) -> AsyncGenerator[Transport]:
    """Either transport, by name."""
    if kind == "generate":
        yield UnaryTransport(host)
        return
    async with session_of(host) as transport:
        yield transport


@dataclasses.dataclass
class Answer:
    """A generation, whole."""

    events: list[generation.GenerateResponse]
    error: FleetError | None = None

    @property
    def kinds(self) -> list[str]:
        """Kinds of the events in order, repetitions once."""
        kinds: list[str] = []
        for event in self.events:
            kind = event.WhichOneof("event") or ""
            if not kinds or kinds[-1] != kind:
                kinds.append(kind)
        return kinds

    @property
    def text(self) -> str:
        return "".join(event.text.text for event in self.events)

    @property
    def reasoning(self) -> str:
        return "".join(event.reasoning.text for event in self.events)

    @property
    def tokens(self) -> int:
        return sum(len(event.text.token_ids) for event in self.events)

    @property
    def finished(self) -> generation.GenerationFinished:
        assert self.error is None, self.error
        assert self.events[-1].HasField("finished")
        return self.events[-1].finished


async def answer(stream: Stream) -> Answer:
    """All that comes of a stream."""
    made = Answer([])
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for event in stream:
                made.events.append(event)
    except FleetError as error:
        made.error = error
    return made

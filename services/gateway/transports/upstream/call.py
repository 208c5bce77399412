"""One generation on another server: a request over HTTP, read by a task of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Final

import httpx2
from typing_extensions import override

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.backplane.timeouts import timeout
from services.gateway.transports.credit_window import CreditWindow
from services.gateway.transports.transport import NeuronSequence, Sink, token_count
from services.gateway.transports.upstream.client import (
    STREAM,
    beginning_of,
    body_of,
    failure_of,
    head_of,
    request_of,
    require_ok,
)
from services.gateway.transports.upstream.decode import AnswerDecoder, Event
from services.gateway.transports.upstream.encode import Encoded
from services.gateway.transports.upstream.errors import StreamRefusedError, Words
from services.gateway.transports.upstream.settings import UpstreamSettings
from services.gateway.transports.upstream.sse import (
    LONGEST_EVENT_BYTES,
    BrokenStreamError,
    EventReader,
)

# Of one answer, framing included: no model's context holds as much.
_MOST_ANSWER_BYTES: Final = 256 << 20
_END_SECONDS: Final = 0.5
_JSON: Final = "application/json"
# The server has not taken the request up, though it said so with status 200.
_REFUSALS: Final = frozenset({Reason.CONTEXT_TOO_LONG, Reason.QUEUE_FULL})


class UpstreamCall(NeuronSequence):
    """One request, and the task that reads its answer.

    A client that reads slowly holds the server back by TCP, once it is behind by the credit.

    Attributes:
        is_admitted: the server has begun to answer: it works on the prompt, or has.
        refused_stream: the server has answered once it was asked for the whole at once.
    """

    def __init__(
        self,
        encoded: Encoded,
        headers: Mapping[str, str],
        client: httpx2.AsyncClient,
        sink: Sink,
        *,
        settings: UpstreamSettings,
        words: Words,
        prompt_tokens: int,
        window_tokens: int,
        faults: Faults,
    ) -> None:
        self._encoded = encoded
        self._headers = headers
        self._client = client
        self._sink = sink
        self._settings = settings
        self._words = words
        self._faults = faults
        self._decoder = AnswerDecoder(
            words, prompt_tokens=prompt_tokens, most_tokens=encoded.most_tokens
        )
        self._credit = CreditWindow(window_tokens)
        self._is_over = False
        self.is_admitted = False
        self.refused_stream = False
        self.task = asyncio.get_running_loop().create_task(self._run())

    @override
    def cancel(self) -> None:
        self._is_over = True
        self.task.cancel()

    def lose(self) -> None:
        """Ends it with an error, because its upstream is not asked any more."""
        self._end(self._words.failed("is not asked any more: this gateway has closed the request"))
        self.cancel()

    @override
    def credit(self, tokens: int) -> None:
        self._credit.grant(tokens)

    async def _run(self) -> None:
        seconds = self._settings.answer_seconds
        try:
            async with timeout(seconds):
                await self._ask_once_or_twice()
        except FleetError as error:
            self.is_admitted = self.is_admitted and error.reason not in _REFUSALS
            self._end(error)
        except (BrokenStreamError, httpx2.HTTPError) as error:
            self._end(failure_of(error, self._words, self._settings))
        except TimeoutError:
            self._end(self._words.endless(seconds))
        except Exception as error:  # noqa: BLE001 - a failing sink ends its own call, no other
            self._end(self._faults.note("upstream-call", error))

    async def _ask_once_or_twice(self) -> None:
        try:
            await self._exchange(self._encoded)
        except StreamRefusedError:
            if not self._encoded.is_streamed:
                raise
            await self._exchange(self._encoded.unstreamed())
            self.refused_stream = True

    async def _exchange(self, encoded: Encoded) -> None:
        settings = self._settings
        url = settings.url.rstrip("/") + encoded.path
        request = request_of(self._client, url, encoded.body, self._headers)
        # an answer that is not streamed has its head when it is ready
        self.is_admitted = not encoded.is_streamed
        seconds = settings.connect_seconds + settings.first_byte_seconds
        response = await self._head(request, seconds if encoded.is_streamed else None)
        try:
            self.is_admitted = False
            await require_ok(response, self._words)
            self.is_admitted = True
            kind = response.headers.get("content-type", "").lower()
            if kind.startswith(STREAM):
                await self._read(response)
            elif kind.startswith(_JSON):  # also of servers that pass `stream` over
                self._deliver(self._decoder.whole(await body_of(response, LONGEST_EVENT_BYTES)))
                self._finish()
            else:
                self._words.require_no_error(await beginning_of(response))
                raise BrokenStreamError(f"it answers with {kind[:80]!r} in place of a stream")
        finally:
            await response.aclose()

    async def _head(self, request: httpx2.Request, seconds: float | None) -> httpx2.Response:
        try:
            return await head_of(self._client, request, self._words, seconds)
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            self.is_admitted = False
            raise

    async def _read(self, response: httpx2.Response) -> None:
        reader, clock = EventReader(), asyncio.get_running_loop().time
        size, idle, chunks = 0, self._settings.idle_seconds, response.aiter_raw()
        try:
            async with timeout(idle) as limit:
                async for chunk in chunks:
                    size += len(chunk)
                    if size > _MOST_ANSWER_BYTES:
                        raise BrokenStreamError("the answer does not end")
                    if self._take(reader.feed(chunk)):
                        limit.reschedule(clock() + idle)
                    if self._decoder.is_done:
                        break
                    if self._credit.is_spent:
                        limit.reschedule(None)  # it is the client who is slow
                        await self._credit.available()
                        limit.reschedule(clock() + idle)
        except TimeoutError as error:
            raise self._words.late(idle) from error
        self._take(reader.end())
        self._finish()
        if self._decoder.is_done and not self._decoder.is_cut:
            await _end_of(chunks)

    def _take(self, datas: Iterable[bytes]) -> bool:
        """Passes on what has come; True where there was news in it."""
        return self._deliver(event for data in datas for event in self._decoder.events(data))

    def _deliver(self, events: Iterable[Event]) -> bool:
        has_news = False
        for event in events:
            has_news = True
            self._pass_on(event)
        if has_news and not self._is_over:
            self._sink.flush()
        return has_news

    def _pass_on(self, event: Event) -> None:
        if self._is_over:
            return
        if event.HasField("text") and not event.text.logprobs:
            self._credit.spend(1)
            self._sink.text(event.text.text, 1)
        else:
            self._credit.spend(token_count(event))
            self._sink.event(event)

    def _finish(self) -> None:
        finished: generation.GenerationFinished = self._decoder.finished()
        for event in self._decoder.last_events():
            self._pass_on(event)
        if not self._is_over:
            self._is_over = True
            self._sink.finished(finished)

    def _end(self, error: FleetError) -> None:
        if not self._is_over:
            self._is_over = True
            with self._faults.contained("upstream-call"):
                self._sink.failed(error)


async def _end_of(chunks: AsyncIterator[bytes]) -> None:
    """Waits for the end behind the last event: only then another request has the connection."""
    with contextlib.suppress(TimeoutError, httpx2.HTTPError):
        async with timeout(_END_SECONDS):
            async for _ in chunks:
                pass

"""One generation on another server: a request over HTTP, read by a task of its own."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final

import httpx2
from typing_extensions import override

from cortex.v1 import generation_pb2 as generation
from services.backplane.errors import FleetError
from services.backplane.process.faults import Faults
from services.backplane.settings import SettingsError
from services.backplane.timeouts import timeout
from services.gateway.transports.credit_window import CreditWindow
from services.gateway.transports.transport import NeuronSequence, Sink, token_count
from services.gateway.transports.upstream.decode import AnswerDecoder, Event
from services.gateway.transports.upstream.encode import Encoded
from services.gateway.transports.upstream.errors import Words
from services.gateway.transports.upstream.settings import UpstreamSettings, is_on_this_machine
from services.gateway.transports.upstream.sse import BrokenStreamError, EventReader

_MOST_ERROR_BYTES: Final = 64 << 10
_ERROR_SECONDS: Final = 5.0
# Of one answer, framing included: no model's context holds as much.
_MOST_ANSWER_BYTES: Final = 256 << 20
_KEEP_SECONDS: Final = 2.0
_END_SECONDS: Final = 0.5
_STREAM: Final = "text/event-stream"


class UpstreamCall(NeuronSequence):
    """One request, and the task that reads its answer.

    A client that reads slowly holds the server back by TCP, once it is behind by the credit.

    Attributes:
        is_admitted: the server has begun to answer: it works on the prompt, or has.
    """

    def __init__(
        self,
        request: httpx2.Request,
        client: httpx2.AsyncClient,
        sink: Sink,
        *,
        settings: UpstreamSettings,
        words: Words,
        prompt_tokens: int,
        window_tokens: int,
        faults: Faults,
    ) -> None:
        self._request = request
        self._client = client
        self._sink = sink
        self._settings = settings
        self._words = words
        self._faults = faults
        self._decoder = AnswerDecoder(words, prompt_tokens=prompt_tokens)
        self._credit = CreditWindow(window_tokens)
        self._is_over = False
        self.is_admitted = False
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
        try:
            await self._exchange()
        except FleetError as error:
            self._end(error)
        except BrokenStreamError as error:
            self._end(self._words.failed(f"cannot be understood: {error}"))
        except httpx2.ConnectTimeout:
            seconds = self._settings.connect_seconds
            self._end(self._words.failed(f"could not be reached within {seconds:g} seconds"))
        except httpx2.ConnectError as error:
            self._end(self._words.failed(f"could not be reached ({error})"))
        except httpx2.HTTPError as error:
            what = str(error) or type(error).__name__
            self._end(self._words.failed(f"closed the connection within the answer ({what})"))
        except Exception as error:  # noqa: BLE001 - a failing sink ends its own call, no other
            self._end(self._faults.note("upstream-call", error))

    async def _exchange(self) -> None:
        response = await self._head()
        try:
            if response.status_code != HTTPStatus.OK:
                body = await _beginning(response)
                raise self._words.refused(response.status_code, response.headers, body)
            kind = response.headers.get("content-type", "")
            if not kind.lower().startswith(_STREAM):
                self._words.require_no_error(await _beginning(response))
                raise BrokenStreamError(f"it answers with {kind[:80]!r} in place of a stream")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise BrokenStreamError("it answers in a coding that was not asked for")
            self.is_admitted = True
            await self._read(response)
        finally:
            await response.aclose()

    async def _head(self) -> httpx2.Response:
        """The answer's head.

        Raises:
            FleetError: it takes too long.
        """
        seconds = self._settings.connect_seconds + self._settings.first_byte_seconds
        try:
            async with timeout(seconds):
                return await self._client.send(self._request, stream=True)
        except TimeoutError as error:
            raise self._words.failed(f"did not answer within {seconds:g} seconds") from error

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
        if self._decoder.is_done:
            await _end_of(chunks)

    def _take(self, datas: Any) -> bool:
        """Passes on what has come; True where there was news in it."""
        has_news = False
        for data in datas:
            for event in self._decoder.events(data):
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


def new_client(
    settings: UpstreamSettings, tls: ssl.SSLContext | None, place: str
) -> httpx2.AsyncClient:
    """The connections to one server.

    Args:
        settings: of the server.
        tls: how its certificate is checked; None: by this machine's authorities.
        place: where the settings stand, for messages.

    Raises:
        SettingsError: the environment names a proxy or authorities that cannot be used.
    """
    try:
        return _new_client(settings, tls)
    except (ImportError, ValueError, OSError, httpx2.InvalidURL):
        # not repeated: a password may stand in the address of a proxy
        told = (
            "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY of the environment is no http(s)://HOST:PORT,"
            " or SSL_CERT_FILE or SSL_CERT_DIR cannot be read"
        )
        raise SettingsError(f"{place}: {told}") from None


def _new_client(settings: UpstreamSettings, tls: ssl.SSLContext | None) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        headers={"accept": _STREAM, "accept-encoding": "identity"},
        # how long an answer may take is looked after by the call
        timeout=httpx2.Timeout(
            None, connect=settings.connect_seconds, write=settings.first_byte_seconds
        ),
        # kept for less than servers keep one: none is used that its server is about to close
        limits=httpx2.Limits(
            max_keepalive_connections=settings.streams, keepalive_expiry=_KEEP_SECONDS
        ),
        follow_redirects=False,  # a key goes nowhere else
        # what one answer sets would go along with the requests of all others, and without a bound
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        # proxies of the environment are for what lies outside
        trust_env=not is_on_this_machine(settings.url),
        verify=True if tls is None else tls,
    )


def request_of(
    client: httpx2.AsyncClient, settings: UpstreamSettings, encoded: Encoded, headers: Any
) -> httpx2.Request:
    """What is posted."""
    url = settings.url.rstrip("/") + encoded.path
    return client.build_request("POST", url, content=encoded.body, headers=headers)


async def _end_of(chunks: AsyncIterator[bytes]) -> None:
    """Waits for the end behind the last event: only then another request has the connection."""
    with contextlib.suppress(TimeoutError, httpx2.HTTPError):
        async with timeout(_END_SECONDS):
            async for _ in chunks:
                pass


async def _beginning(response: httpx2.Response) -> bytes:
    """As much of an error's body as is worth reading, within seconds."""
    found = bytearray()
    try:
        async with timeout(_ERROR_SECONDS):
            async for chunk in response.aiter_raw():
                found += chunk
                if len(found) > _MOST_ERROR_BYTES:
                    break
    except (TimeoutError, httpx2.HTTPError):
        pass  # the status says the most of it
    return bytes(found[:_MOST_ERROR_BYTES])

"""Another server that answers requests: the client to it, its key, how much is asked of it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, Final, TypeVar

from cortex.v1 import generation_pb2 as generation
from cortex.v1 import neuron_service_pb2 as neuron
from services.backplane.changes import Changes
from services.backplane.process.faults import Faults
from services.gateway.transports.transport import Sink
from services.gateway.transports.upstream import count as counting
from services.gateway.transports.upstream import embed
from services.gateway.transports.upstream.encode import Encoded, encode
from services.gateway.transports.upstream.errors import Words
from services.gateway.transports.upstream.hops import HEADER
from services.gateway.transports.upstream.settings import (
    UpstreamSettings,
    key_of,
    tls_of,
)
from services.gateway.transports.upstream.sse import BrokenStreamError

if TYPE_CHECKING:
    from services.gateway.transports.upstream.call import UpstreamCall

T = TypeVar("T")

# Of larger ones other clients would notice how long it takes to write or to read them.
_LARGE_BYTES: Final = 1 << 20
# So long a server is asked for whole answers of a model that it has not streamed; then once more.
_UNSTREAMED_SECONDS: Final = 3600.0
_MOST_UNSTREAMED: Final = 256


class Upstream:
    """One entry of `[[gateway.upstreams]]`.

    Args:
        settings: the entry.
        place: where it stands, for messages.
        window_tokens: how far it may run ahead of a client.
        faults: notes what a sink raises.

    Raises:
        SettingsError: its key or its authorities cannot be read.

    Attributes:
        settings: the entry.
        words: words its errors.
        streams: generations that run there.
    """

    def __init__(
        self, settings: UpstreamSettings, *, place: str, window_tokens: int, faults: Faults
    ) -> None:
        self._place = place
        # whoever has no upstreams does not wait for the library
        from services.gateway.transports.upstream.client import new_client

        self._key = key_of(settings, place)
        self.words = Words(settings.name, self._key)
        self._window_tokens = window_tokens
        self._faults = faults
        self._client = new_client(settings, tls_of(settings, place), place)
        self._calls: set[UpstreamCall] = set()
        self._idle = Changes()
        self._unstreamed: dict[str, float] = {}  # until when no stream is asked for, by its names
        self.settings = settings
        self.streams = 0

    def read_key(self) -> None:
        """Sends the key that its file has now.

        Raises:
            SettingsError: it cannot be read; the one from before is sent.
        """
        self._key = key_of(self.settings, self._place)
        self.words = Words(self.settings.name, self._key)

    @contextlib.contextmanager
    def places(self, count: int) -> Generator[int]:
        """Takes places for the choices of a request while the context is open.

        Args:
            count: of its choices.

        Yields:
            How many it got, at least one: so many may run at one time.

        Raises:
            FleetError: QUEUE_FULL: there is none.
        """
        taken = min(count, self.settings.streams - self.streams)
        if taken <= 0:
            raise self.words.full(self.settings.streams)
        self.streams += taken
        try:
            yield taken
        finally:
            self.streams -= taken
            self._idle.bump()

    async def encoded(
        self, request: generation.GenerateRequest, *, model: str, prompt_tokens: int
    ) -> Encoded:
        """What is to be posted for one choice; a large one is written in a thread.

        Args:
            request: of the choice.
            model: as clients call it.
            prompt_tokens: of the prompt, estimated.

        Raises:
            FleetError: it cannot be asked of this server.
        """
        theirs = self.settings.theirs(model) or model
        write = functools.partial(
            encode, request, self.settings, model=theirs, prompt_tokens=prompt_tokens
        )
        return await _apart(write, request.ByteSize())

    def start(
        self,
        encoded: Encoded,
        sink: Sink,
        *,
        request_id: str,
        traceparent: str,
        prompt_tokens: int,
        hops: int = 1,
    ) -> UpstreamCall:
        """Begins a generation without waiting. Errors reach the sink, none is raised.

        Args:
            encoded: what is posted.
            sink: takes the events.
            request_id: as every log line carries it.
            traceparent: of its trace; empty: it has none.
            prompt_tokens: of the prompt, estimated.
            hops: how many gateways have sent it on, this one included.
        """
        from services.gateway.transports.upstream.call import UpstreamCall

        headers = self._headers(request_id, traceparent, hops)
        if self._unstreamed.get(encoded.model, 0.0) > asyncio.get_running_loop().time():
            encoded = encoded.unstreamed()
        call = UpstreamCall(
            encoded,
            headers,
            self._client,
            sink,
            settings=self.settings,
            words=self.words,
            prompt_tokens=prompt_tokens,
            window_tokens=self._window_tokens,
            faults=self._faults,
        )
        self._calls.add(call)
        call.task.add_done_callback(lambda _: self._ended(call, encoded.model))
        return call

    def _ended(self, call: UpstreamCall, model: str) -> None:
        self._calls.discard(call)
        if call.refused_stream:
            if len(self._unstreamed) >= _MOST_UNSTREAMED:
                self._unstreamed.clear()
            until = asyncio.get_running_loop().time() + _UNSTREAMED_SECONDS
            self._unstreamed[model] = until

    async def embed(
        self,
        request: neuron.EmbedRequest,
        *,
        model: str,
        tokens: int,
        traceparent: str,
        hops: int,
    ) -> neuron.EmbedResponse:
        """Embeds texts there.

        Args:
            request: the texts.
            model: as clients call it.
            tokens: of the texts, estimated.
            traceparent: of its trace; empty: it has none.
            hops: how many gateways have sent it on, this one included.

        Raises:
            FleetError: it cannot be asked, fails, or what it says is no answer.
        """
        theirs = self.settings.theirs(model) or model
        write = functools.partial(embed.encode, request, self.settings, model=theirs)
        body = await _apart(write, request.ByteSize())
        url = self.settings.url.rstrip("/") + embed.PATH
        headers = self._headers(request.request_id, traceparent, hops)
        told = await self._post(url, body, headers, embed.MOST_BYTES)
        with self._understood():
            read = functools.partial(embed.decode, told, request, self.words, tokens=tokens)
            return await _apart(read, len(told))

    async def count_tokens(
        self,
        request: neuron.CountTokensRequest,
        *,
        model: str,
        request_id: str,
        traceparent: str,
        hops: int,
    ) -> neuron.CountTokensResponse:
        """Counts a prompt there; arguments and errors as of `embed`."""
        root = self.settings.url.rstrip("/").removesuffix("/v1")
        headers = self._headers(request_id, traceparent, hops)

        async def post(path: str, body: bytes) -> bytes:
            return await self._post(root + path, body, headers, counting.MOST_BYTES)

        theirs = self.settings.theirs(model) or model
        with self._understood():
            return await counting.count(
                request, self.settings, post, model=theirs, words=self.words
            )

    def _headers(self, request_id: str, traceparent: str, hops: int) -> dict[str, str]:
        headers = {"content-type": "application/json", "x-request-id": request_id}
        headers[HEADER] = str(hops)
        if traceparent:
            headers["traceparent"] = traceparent
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        return headers

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str], most: int) -> bytes:
        from services.gateway.transports.upstream.client import posted, request_of

        return await posted(
            self._client,
            request_of(self._client, url, body, headers),
            words=self.words,
            settings=self.settings,
            most_bytes=most,
        )

    @contextlib.contextmanager
    def _understood(self) -> Generator[None]:
        try:
            yield
        except BrokenStreamError as error:
            raise self.words.failed(f"cannot be understood: {error}") from error

    async def leave(self) -> None:
        """Waits until what runs there has ended, then closes the connections."""
        while self.streams:
            await self._idle.after(self._idle.version)
        await self.close()

    async def close(self) -> None:
        """Ends everything that runs there, with an error."""
        calls = list(self._calls)
        for call in calls:
            call.lose()
        await asyncio.gather(*(call.task for call in calls), return_exceptions=True)
        await self._client.aclose()


async def _apart(work: Callable[[], T], size: int) -> T:
    """Does the work for so many bytes, in a thread where they are many."""
    return work() if size < _LARGE_BYTES else await asyncio.to_thread(work)

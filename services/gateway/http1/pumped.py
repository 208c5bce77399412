"""`DirectResponse` over plain ASGI: a bounded buffer and a task that empties it."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from services.gateway.http1.direct import EXTENSION, DirectResponse, call_back
from services.gateway.http1.limits import Http1Limits

HIGH_WATER_BYTES = 64 * 1024
LOW_WATER_BYTES = 16 * 1024

log = structlog.get_logger()


class PumpedResponse(DirectResponse):
    """A `DirectResponse` that needs nothing but `send` and `receive`.

    Owns two tasks until `aclose`: the pump, from `start` on, which merges whatever was written
    since its last send, and the watch, from `on_close` or `start` on, which waits for the peer
    to leave.
    """

    def __init__(
        self,
        receive: Receive,
        send: Send,
        *,
        limits: Http1Limits | None = None,
    ) -> None:
        self._receive = receive
        self._send = send
        self._limits = limits or Http1Limits()
        self._loop = asyncio.get_running_loop()
        self._head: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._was_full = False
        self._written = False
        self._finished = False
        self._lost = False
        self._work = asyncio.Event()
        self._pump_task: asyncio.Task[None] | None = None
        self._watch_task: asyncio.Task[None] | None = None
        self._on_close: Callable[[], None] | None = None
        self._on_drain: Callable[[], None] | None = None

    @property
    @override
    def closed(self) -> bool:
        return self._finished or self._lost

    @override
    def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        if self._head is not None:
            raise RuntimeError("the response was started before")
        kept = [(name, value) for name, value in headers if name != b"transfer-encoding"]
        if any(b"\n" in part or b"\r" in part for pair in kept for part in pair):
            raise ValueError("a header with a line break in it")
        self._head = (status, kept)
        self._pump_task = self._loop.create_task(self._pump())
        self._watch_peer()

    @override
    def write(self, data: bytes) -> None:
        if self.closed or self._head is None:
            return
        self._written = True
        self._keep(data)

    @override
    def finish(self, tail: bytes = b"") -> None:
        if self.closed or self._head is None:
            return
        self._finished = True
        self._keep(tail)

    @override
    def abort(self) -> None:
        if not self.closed:
            self._on_close = None
            self._lose()

    @override
    def buffered(self) -> int:
        return self._buffered

    @override
    def on_close(self, callback: Callable[[], None]) -> None:
        self._on_close = callback
        if self._lost:
            self._loop.call_soon(self._tell_closed)
        else:
            self._watch_peer()

    @override
    def on_drain(self, callback: Callable[[], None]) -> None:
        self._on_drain = callback

    @override
    async def aclose(self) -> None:
        """Waits at most `Http1Limits.flush_seconds` for a client that reads nothing."""
        if not self._finished:
            self.abort()
        try:
            if self._pump_task is not None:
                await asyncio.wait({self._pump_task}, timeout=self._limits.flush_seconds)
        finally:
            tasks = {task for task in (self._pump_task, self._watch_task) if task is not None}
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)

    def _keep(self, data: bytes) -> None:
        if data:
            self._pieces.append(data)
            self._buffered += len(data)
            self._was_full = self._was_full or self._buffered > HIGH_WATER_BYTES
        self._work.set()
        if self._buffered > self._limits.buffered_bytes and not self._finished:
            self._lose()

    def _lose(self) -> None:
        self._lost = True
        self._pieces.clear()
        self._buffered = 0
        if self._pump_task is not None:
            self._pump_task.cancel()
        self._loop.call_soon(self._tell_closed)

    async def _pump(self) -> None:
        try:
            await self._work.wait()
            await self._send_head()
            while not (self._finished and not self._pieces):
                await self._work.wait()
                self._work.clear()
                await self._send_pieces()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        except OSError:
            self._lose()
        except Exception:
            # The last resort of a task's root: a server may raise anything it likes here.
            log.exception("response.send_failed")
            self._lose()

    async def _send_head(self) -> None:
        if self._head is None:
            return
        status, headers = self._head
        whole = self._finished and not self._written
        if whole and not any(name == b"content-length" for name, _ in headers):
            headers = [*headers, (b"content-length", b"%d" % self._buffered)]
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        if not whole:
            # An empty piece makes servers that hold the head back send it.
            await self._send({"type": "http.response.body", "body": b"", "more_body": True})

    async def _send_pieces(self) -> None:
        if not self._pieces:
            return
        data = b"".join(self._pieces)
        self._pieces.clear()
        await self._send({"type": "http.response.body", "body": data, "more_body": True})
        self._buffered -= len(data)
        if self._was_full and self._buffered <= LOW_WATER_BYTES:
            self._was_full = False
            if self._on_drain is not None:
                call_back(self._on_drain)

    def _watch_peer(self) -> None:
        if self._watch_task is None:
            self._watch_task = self._loop.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                break
        if not self._finished or self._pieces:
            self._lose()

    def _tell_closed(self) -> None:
        callback, self._on_close = self._on_close, None
        if callback is not None and not self._finished:
            call_back(callback)


def direct_response(scope: Scope, receive: Receive, send: Send) -> DirectResponse:
    """The response for this request: the codec's own where it is served by it, else over ASGI.

    Call it once per request, after the body was read: over plain ASGI the response owns
    `receive` from `on_close` or `start` on, to learn that the peer has left.
    """
    extensions: dict[str, Any] = scope.get("extensions") or {}
    native: DirectResponse | None = extensions.get(EXTENSION)
    return PumpedResponse(receive, send) if native is None else native

"""The direct response over plain ASGI: a bounded buffer and a task that empties it."""

import asyncio
from collections.abc import Callable, Iterable

import structlog
from starlette.types import Receive, Send

from services.gateway.http1.limits import Http1Limits

HIGH_WATER_BYTES = 64 * 1024
LOW_WATER_BYTES = 16 * 1024

log = structlog.get_logger()


class PumpedResponse:
    """Keeps the contract of `DirectResponse` with `send` and `receive` alone.

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
    def closed(self) -> bool:
        """See `DirectResponse.closed`."""
        return self._finished or self._lost

    def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """See `DirectResponse.start`."""
        if self._head is not None:
            raise RuntimeError("the response was started before")
        kept = [(name, value) for name, value in headers if name != b"transfer-encoding"]
        if any(b"\n" in part or b"\r" in part for pair in kept for part in pair):
            raise ValueError("a header with a line break in it")
        self._head = (status, kept)
        self._pump_task = self._loop.create_task(self._pump())
        self._watch_peer()

    def write(self, data: bytes) -> None:
        """See `DirectResponse.write`."""
        if self.closed or self._head is None:
            return
        self._written = True
        self._keep(data)

    def finish(self, tail: bytes = b"") -> None:
        """See `DirectResponse.finish`."""
        if self.closed or self._head is None:
            return
        self._finished = True
        self._keep(tail)

    def abort(self) -> None:
        """See `DirectResponse.abort`."""
        if not self.closed:
            self._on_close = None
            self._lose()

    def buffered(self) -> int:
        """See `DirectResponse.buffered`."""
        return self._buffered

    def on_close(self, callback: Callable[[], None]) -> None:
        """See `DirectResponse.on_close`."""
        self._on_close = callback
        if self._lost:
            self._loop.call_soon(self._tell_closed)
        else:
            self._watch_peer()

    def on_drain(self, callback: Callable[[], None]) -> None:
        """See `DirectResponse.on_drain`."""
        self._on_drain = callback

    async def aclose(self) -> None:
        """See `DirectResponse.aclose`. A reader who stalls is given up after a while."""
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
            self._tell(self._on_drain)

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
        if not self._finished:
            self._tell(callback)

    def _tell(self, callback: Callable[[], None] | None) -> None:
        if callback is None:
            return
        try:
            callback()
        except Exception:
            # Whoever wrote the sink must not be able to end the pump.
            log.exception("response.callback_failed")

"""A served app in a thread of its own, and a client that speaks bytes."""

import asyncio
import http.client
import io
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeAlias, cast

from starlette.types import ASGIApp

from services.gateway.server import HttpServer, ServerOptions, new_event_loop

DEADLINE_SECONDS = 60
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": new_event_loop,
}


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes


class Served:
    """A server that runs until `shut_down`; `ended` is set when `serve` has returned."""

    def __init__(self, app: ASGIApp, options: ServerOptions, loop: str) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._shutdown = asyncio.Event()
        self._ready = threading.Event()
        self.address = ""
        self._thread = threading.Thread(target=self._main, args=(app, options, loop), daemon=True)
        self._thread.start()
        assert self._ready.wait(DEADLINE_SECONDS)

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def shut_down(self) -> None:
        assert self._loop is not None
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._shutdown.set)

    def join(self) -> None:
        self._thread.join(DEADLINE_SECONDS)
        assert not self._thread.is_alive()

    def call(self, function: Callable[[], Any]) -> Any:
        """Runs a function on the server's loop."""

        async def run() -> Any:
            return function()

        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(DEADLINE_SECONDS)

    def _main(self, app: ASGIApp, options: ServerOptions, loop: str) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(self._serve(app, options))

    async def _serve(self, app: ASGIApp, options: ServerOptions) -> None:
        self._loop = asyncio.get_running_loop()
        server = HttpServer(app, options)
        self.address = server.address
        self._ready.set()
        await server.serve(self._shutdown.wait)


@contextmanager
def served(app: ASGIApp, options: ServerOptions, loop: str) -> Iterator[Served]:
    server = Served(app, options, loop)
    try:
        yield server
    finally:
        server.shut_down()
        server.join()


class _KeptOpen(io.BufferedReader):
    """http.client closes its file behind each answer; the connection goes on here."""

    def close(self) -> None:
        pass


class Client:
    """One connection. Sends what it is told, byte for byte; parses answers strictly."""

    def __init__(self, port: int, *, tls: ssl.SSLContext | None = None, rcvbuf: int = 0) -> None:
        sock = socket.socket()
        if rcvbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        sock.settimeout(DEADLINE_SECONDS)
        sock.connect(("127.0.0.1", port))
        self.socket = tls.wrap_socket(sock, server_hostname="localhost") if tls else sock
        self._file = _KeptOpen(cast("io.RawIOBase", self.socket.makefile("rb", buffering=0)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        io.BufferedReader.close(self._file)
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def get(self, path: str = "/", *headers: str, method: str = "GET") -> Reply:
        lines = [f"{method} {path} HTTP/1.1", "host: test", *headers, "", ""]
        self.send("\r\n".join(lines).encode())
        return self.reply(method)

    def post(self, body: bytes, path: str = "/", *headers: str) -> Reply:
        self.send(post(body, path, *headers))
        return self.reply()

    def reply(self, method: str = "GET") -> Reply:
        """Reads one whole answer; raises http.client's errors where it is cut short."""
        response = http.client.HTTPResponse(cast("socket.socket", self), method=method)
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, headers, response.read())

    def read_until(self, needle: bytes) -> bytes:
        """Reads from the wire up to and with a needle."""
        data = b""
        while not data.endswith(needle):
            piece = self._file.read(1)
            assert piece, data
            data += piece
        return data

    def read_all(self) -> bytes:
        """Reads up to the server's end of the connection; a reset counts as an end."""
        data = b""
        try:
            while piece := self._file.read1(65536):
                data += piece
        except ConnectionResetError:
            pass
        return data

    def makefile(self, *_: object) -> io.BufferedReader:
        """For http.client."""
        return self._file


def post(body: bytes, path: str = "/", *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: test", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def chunked(*pieces: bytes, path: str = "/") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces) + b"0\r\n\r\n"


def refusal(client: Client, method: str = "GET") -> tuple[int, str]:
    reply = client.reply(method)
    said = json.loads(reply.body)
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["connection"] == "close"
    assert said["status"] == reply.status
    assert client.read_all() == b""
    return reply.status, said["path"]


Serve: TypeAlias = Callable[..., Served]

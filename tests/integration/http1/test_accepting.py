"""Who opens many connections holds up nobody else."""

import asyncio
import errno
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from typing_extensions import override

from services.gateway.http1.hypercorn import accepting
from services.gateway.http1.hypercorn.counted_server import CountedServer
from tests.integration.http1.app import App
from tests.integration.http1.serving import DEADLINE_SECONDS, Client, Serve, Served

_MANY = 100


@contextmanager
def _held(server: Served) -> Iterator[None]:
    """The server's loop does nothing while the context is open."""
    holds, goes_on = threading.Event(), threading.Event()

    def hold() -> None:
        holds.set()
        goes_on.wait(DEADLINE_SECONDS)

    holder = threading.Thread(target=server.call, args=(hold,))
    holder.start()
    assert holds.wait(DEADLINE_SECONDS)
    try:
        yield
    finally:
        goes_on.set()
        holder.join(DEADLINE_SECONDS)


def _connected(server: Served, source: str = "127.0.0.1") -> socket.socket:
    address = ("127.0.0.1", server.port)
    return socket.create_connection(address, DEADLINE_SECONDS, source_address=(source, 0))


def test_of_those_who_have_left_no_connection_is_made(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[CountedServer] = []
    run = CountedServer.run

    async def counted(self: CountedServer) -> None:
        made.append(self)
        await run(self)

    monkeypatch.setattr(CountedServer, "run", counted)
    server = serve()

    with _held(server):
        for number in range(_MANY):
            left = _connected(server)
            if number % 2:  # by a reset
                left.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            left.close()
    with Client(server.port) as client:
        assert client.get("/echo").status == 200

    assert len(made) == 1


def test_addresses_take_turns(serve: Serve, app: App) -> None:
    server = serve()

    with _held(server):
        many = [_connected(server) for _ in range(_MANY)]
        one = _connected(server, "127.0.0.2")
        for connection in many:
            connection.sendall(b"GET /echo/many HTTP/1.1\r\nhost: t\r\n\r\n")
        one.sendall(b"GET /echo/one HTTP/1.1\r\nhost: t\r\n\r\n")
    for connection in (one, *many):
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
        connection.close()

    assert app.paths.index("/echo/one") < _MANY // 4


class _Exhausted(socket.socket):
    """Has no file descriptor left for the first who comes."""

    has_failed = False

    @override
    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        if not self.has_failed:
            self.has_failed = True
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


async def test_where_nothing_can_be_accepted_it_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(accepting, "_PAUSE_SECONDS", 0.01)

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"served")
        writer.close()

    listener = _Exhausted()
    listener.bind(("127.0.0.1", 0))
    server = await accepting.start_server(serve, sock=listener, backlog=10)

    reader, writer = await asyncio.open_connection(*listener.getsockname())
    told = await reader.read()
    writer.close()
    server.close()
    await server.wait_closed()

    assert told == b"served"
    assert listener.has_failed


async def test_who_waits_when_it_closes_is_let_go() -> None:
    async def serve(*_: object) -> None:
        raise AssertionError

    listener = socket.create_server(("127.0.0.1", 0))
    server = await accepting.start_server(serve, sock=listener, backlog=10)

    with socket.create_connection(listener.getsockname()) as client:
        server.close()
        client.settimeout(DEADLINE_SECONDS)
        try:
            told = client.recv(1)
        except ConnectionResetError:
            told = b""

    assert told == b""

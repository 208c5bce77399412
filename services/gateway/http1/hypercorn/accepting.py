"""Accepts connections, so that one client that opens thousands holds up nobody else.

asyncio and uvloop make a connection of whatever was accepted, in the order of the kernel's queue.
A client that opens connections and closes them fills that queue faster than connections are made,
and everybody else waits behind it. Here what was accepted costs some microseconds: who has left
already is let go, and those who have not begin in turns by address, a few at a time. With TLS each
address has so many handshakes under way at most, each for so long: before their end nobody else
counts them.
"""

from __future__ import annotations

import asyncio
import functools
import socket
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from ssl import SSLContext
from typing import Final, TypeAlias

import structlog

Serve: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

# Connections that begin before others on the loop have a turn, at some 0.2 ms each.
_AT_ONCE: Final = 16
# What is accepted before they have one, at some 10 µs each.
_ACCEPTED_AT_ONCE: Final = 256
# What waits to begin; more wait in the kernel.
_MOST_WAITING: Final = 4096
# TLS handshakes of one address under way; what comes beyond them is let go.
_MOST_HANDSHAKES: Final = 256
_HANDSHAKE_SECONDS: Final = 10.0
# The system has no file descriptors left, or no memory: it may have some then.
_PAUSE_SECONDS: Final = 0.5

log = structlog.get_logger()


class AcceptingServer:
    """What `asyncio.start_server` returns, as far as Hypercorn uses it.

    Args:
        listener: listens already.
        serve: serves one connection.
        tls: of its connections; None serves plain TCP.
    """

    def __init__(
        self,
        listener: socket.socket,
        serve: Serve,
        *,
        tls: SSLContext | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._serve = serve
        self._tls = tls
        self._handshakes: Counter[str] = Counter()
        self._waiting: dict[str, deque[socket.socket]] = {}
        self._count = 0
        self._is_beginning = False
        self._beginnings: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._is_closed = False
        listener.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Accepts no more; closes connections that were accepted and not begun."""
        self._is_closed = True
        self._loop.remove_reader(self._listener)
        if self._pause is not None:
            self._pause.cancel()
        self._listener.close()
        for line in self._waiting.values():
            for connection in line:
                connection.close()
        self._waiting.clear()
        for task in self._beginnings:
            task.cancel()

    async def wait_closed(self) -> None:
        """Waits until none begins any more."""
        if self._beginnings:
            await asyncio.wait(self._beginnings)

    def _listen(self) -> None:
        if not self._is_closed:
            self._pause = None
            self._loop.add_reader(self._listener, self._accept)

    def _stop_for_a_while(self) -> None:
        self._loop.remove_reader(self._listener)
        if self._pause is None:
            self._pause = self._loop.call_later(_PAUSE_SECONDS, self._listen)

    def _accept(self) -> None:
        for _ in range(_ACCEPTED_AT_ONCE):
            if self._count >= _MOST_WAITING:
                break
            try:
                connection, name = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                break
            except OSError as error:
                log.error("connection.not_accepted", reason=str(error))  # noqa: TRY400 - no fault
                self._stop_for_a_while()
                break
            if _has_left(connection):
                connection.close()
                continue
            # of a Unix socket there is no address: all its clients are on this machine
            address = name[0] if isinstance(name, tuple) else ""
            self._waiting.setdefault(address, deque()).append(connection)
            self._count += 1
        if not self._is_beginning:
            self._begin_some()

    def _begin_some(self) -> None:
        """Begins the next connections, one of each address in turn."""
        self._is_beginning = False
        begun = 0
        while self._waiting and begun < _AT_ONCE:
            address, line = next(iter(self._waiting.items()))
            connection = line.popleft()
            del self._waiting[address]
            if line:
                self._waiting[address] = line
            self._count -= 1
            is_too_much = self._handshakes[address] >= _MOST_HANDSHAKES
            if is_too_much or _has_left(connection):
                connection.close()
                continue
            begun += 1
            self._handshakes[address] += self._tls is not None
            task = self._loop.create_task(self._begin(connection))
            self._beginnings.add(task)
            task.add_done_callback(functools.partial(self._begun, address))
        if self._waiting:
            self._is_beginning = True
            self._loop.call_soon(self._begin_some)

    def _begun(self, address: str, task: asyncio.Task[None]) -> None:
        self._beginnings.discard(task)
        self._handshakes[address] -= self._tls is not None
        if not self._handshakes[address]:
            del self._handshakes[address]

    async def _begin(self, connection: socket.socket) -> None:
        reader = asyncio.StreamReader(loop=self._loop)
        protocol = asyncio.StreamReaderProtocol(reader, self._serve, loop=self._loop)
        try:
            if connection.family != socket.AF_UNIX:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self._loop.connect_accepted_socket(
                lambda: protocol,
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=None if self._tls is None else _HANDSHAKE_SECONDS,
            )
        except OSError:  # it has left, or speaks no TLS; TimeoutError is one too
            connection.close()
        except BaseException:
            connection.close()
            raise


async def start_server(
    serve: Serve,
    *,
    sock: socket.socket,
    backlog: int,
    ssl: SSLContext | None = None,
    ssl_handshake_timeout: float | None = None,
) -> AcceptingServer:
    """In place of `asyncio.start_server`, for Hypercorn; without a server's other methods."""
    del ssl_handshake_timeout  # a minute, which is too long for as many as may come
    sock.listen(backlog)
    return AcceptingServer(sock, serve, tls=ssl)


def _has_left(connection: socket.socket) -> bool:
    """Whether a client has ended its side, or is gone, without having sent a byte."""
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except (BlockingIOError, InterruptedError):
        return False
    except OSError:
        return True

"""The network between the processes of a fleet: a TCP proxy before each, which can be cut off.

A proxy knows which process calls. So one can be cut off from all others, both ways, as by a cable
that is pulled: nothing is refused or reset, and bytes that were on their way come when it is
plugged in.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Final

_CHUNK_BYTES: Final = 1 << 16
HOST: Final = "127.0.0.1"
_AT_ONCE: Final = struct.pack("ii", 1, 0)

Pids = Callable[[], dict[str, int]]
Enter = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Network:
    """Proxies in front of the services of a fleet; all pass bytes on at first."""

    def __init__(self, pids: Pids) -> None:
        """Listens nowhere yet.

        Args:
            pids: of the services that run, by name, now.
        """
        self._pids = pids
        self._cut: set[str] = set()
        self._healed = asyncio.Event()
        self._healed.set()

    def cut(self, name: str) -> None:
        """Cuts one service off from all others."""
        self._cut.add(name)
        self._healed.clear()

    def heal(self) -> None:
        """Plugs everybody in again."""
        self._cut.clear()
        self._healed.set()

    @contextlib.asynccontextmanager
    async def proxy(self, name: str, port: int) -> AsyncGenerator[str]:
        """Listens in place of a service while the context is open.

        Args:
            name: of the service.
            port: where it listens itself.

        Yields: the address that others are told.
        """

        async def enter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            ends = frozenset({name, self._who(writer)})
            await self.passed(ends)
            await self.carry(ends, port, reader, writer)

        async with listening(enter) as mine:
            yield f"{HOST}:{mine}"

    async def passed(self, ends: frozenset[str]) -> None:
        """Returns once there is a way between two services."""
        while ends & self._cut:
            await self._healed.wait()

    async def carry(
        self,
        ends: frozenset[str],
        port: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Connects a caller to a service and passes bytes until either side has ended.

        Raises:
            OSError: the service refuses connections.
        """
        theirs, answering = await asyncio.open_connection(HOST, port, limit=_CHUNK_BYTES)
        ways = {
            asyncio.create_task(self._pump(ends, reader, answering)),
            asyncio.create_task(self._pump(ends, theirs, writer)),
        }
        try:
            ended, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
            if any(way.exception() for way in ended):  # a reset is passed on as one
                await self.passed(ends)
                _reset(writer)
        finally:
            for way in ways:
                way.cancel()
            answering.transport.abort()

    async def _pump(
        self, ends: frozenset[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """One direction, to its end, which is passed on.

        Raises:
            OSError: either side has reset the connection.
        """
        while data := await reader.read(_CHUNK_BYTES):
            await self.passed(ends)
            writer.write(data)
            await writer.drain()
        await self.passed(ends)
        writer.write_eof()

    def _who(self, writer: asyncio.StreamWriter) -> str:
        """The service that a connection comes from; empty for anybody else."""
        return _holder(self._pids(), writer.get_extra_info("peername")[1])


@contextlib.asynccontextmanager
async def listening(enter: Enter) -> AsyncGenerator[int]:
    """Serves connections while the context is open, whose end is theirs.

    Args:
        enter: serves one; it is closed behind it, also where that raises `OSError`.

    Yields: the port.
    """
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await enter(reader, writer)
        finally:
            tasks.discard(task)
            writer.close()

    server = await asyncio.start_server(serve, HOST, 0, limit=_CHUNK_BYTES)
    port: int = server.sockets[0].getsockname()[1]
    try:
        yield port
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def _reset(writer: asyncio.StreamWriter) -> None:
    """Ends a connection as the kernel ends those of a process that was killed."""
    held: socket.socket = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    writer.transport.abort()


def _holder(pids: dict[str, int], port: int) -> str:
    """Who has a port of this machine; quick, since connections wait for it."""
    sockets = {f"socket:[{inode}]" for inode in _inodes(port)}
    for name, pid in pids.items():
        with contextlib.suppress(OSError):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(descriptor.readlink()) in sockets:
                        return name
    return ""


def _inodes(port: int) -> set[str]:
    """Of the sockets that are bound to a port, as proc(5) has them."""
    local = f":{port:04X}"
    found: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                words = line.split()
                if words[1].endswith(local):
                    found.add(words[9])
    return found

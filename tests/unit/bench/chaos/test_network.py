"""A door passes bytes both ways, holds them while either end is cut off, and passes ends on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import AsyncIterator

import pytest

from bench.chaos.network import Network

MOMENT = 0.2
PATIENCE = 10.0


class Echo:
    """Says back what it hears; `reset` ends every connection as a killed process does."""

    def __init__(self) -> None:
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        yield
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.suppress(OSError):
            while data := await reader.read(1000):
                writer.write(data)
        writer.close()

    def reset(self) -> None:
        for writer in self._writers:
            held: socket.socket = writer.get_extra_info("socket")
            held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    made = Echo()
    async with made.serving():
        yield made


@pytest.fixture
async def network() -> Network:
    return Network(lambda: {"caller": os.getpid()})


async def dial(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))


async def heard(reader: asyncio.StreamReader, seconds: float = PATIENCE) -> bytes | None:
    try:
        return await asyncio.wait_for(reader.read(1000), seconds)
    except TimeoutError:
        return None


@pytest.mark.parametrize("whom", ["echo", "caller"])
async def test_bytes_wait_while_either_end_is_cut_off(
    echo: Echo, network: Network, whom: str
) -> None:
    async with network.proxy("echo", echo.port) as address:
        reader, writer = await dial(address)
        writer.write(b"one")
        first = await heard(reader)
        network.cut(whom)
        writer.write(b"two")
        meanwhile = await heard(reader, MOMENT)
        network.heal()
        behind = await heard(reader)
        writer.close()

    assert (b"one", None, b"two") == (first, meanwhile, behind)


async def test_a_new_connection_waits_too(echo: Echo, network: Network) -> None:
    network.cut("echo")
    async with network.proxy("echo", echo.port) as address:
        reader, writer = await dial(address)
        writer.write(b"one")
        meanwhile = await heard(reader, MOMENT)
        network.heal()
        behind = await heard(reader)
        writer.close()

    assert (None, b"one") == (meanwhile, behind)


async def test_others_pass(echo: Echo, network: Network) -> None:
    network.cut("somebody else")
    async with network.proxy("echo", echo.port) as address:
        reader, writer = await dial(address)
        writer.write(b"one")
        assert b"one" == await heard(reader)
        writer.write_eof()
        assert b"" == await heard(reader)
        writer.close()


async def test_a_reset_is_passed_on_as_one(echo: Echo, network: Network) -> None:
    async with network.proxy("echo", echo.port) as address:
        reader, writer = await dial(address)
        writer.write(b"one")
        await heard(reader)
        echo.reset()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(1000), PATIENCE)
        writer.close()

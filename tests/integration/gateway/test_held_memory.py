"""What clients hold of the gateway's memory that send much and never come to an end."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
from collections.abc import AsyncGenerator, Awaitable, Callable

import psutil
import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request, TextMessage

from tests.doubles.processes import free_port
from tests.doubles.stand_in_registry import StandInRegistry
from tests.integration.gateway.gateway_process import Process, ready, settings

MEGABYTE = 1 << 20
BUDGET = 64 * MEGABYTE
CLIENTS = 20
# What all of them would hold if each were let.
EACH = 16 * MEGABYTE
PIECE = b"x" * (256 << 10)
# Buffers of the sockets, and what the interpreter keeps for itself.
SLACK = CLIENTS * MEGABYTE + 40 * MEGABYTE
BODY = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n" % (60 * MEGABYTE)
)


@pytest.fixture
async def port(tmp_path: pathlib.Path) -> AsyncGenerator[int]:
    registry, gateway, at = StandInRegistry(), Process(tmp_path), free_port()
    more = f"bodies_bytes = {BUDGET}\nbody_bytes_per_second = 1"
    await gateway.start(settings(await registry.start(), port=at, more=more))
    await ready(at)
    try:
        yield at
    finally:
        gateway.process.kill()
        await gateway.process.wait()
        await registry.stop()


async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """A body of which most comes; what the gateway took of it."""
    writer.write(BODY)
    return await _pour(reader, writer, lambda: PIECE)


async def message(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
    """A WebSocket message that is not finished; what the gateway took of it."""
    protocol = WSConnection(ConnectionType.CLIENT)
    writer.write(protocol.send(Request(host="localhost", target="/v1/responses")))
    protocol.receive_data(await reader.read(4096))
    assert isinstance(next(protocol.events()), AcceptConnection)
    text = PIECE.decode()
    return await _pour(
        reader, writer, lambda: protocol.send(TextMessage(text, message_finished=False))
    )


async def _pour(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, piece: Callable[[], bytes]
) -> int:
    sent = 0
    with contextlib.suppress(OSError):
        while sent < EACH and not reader.at_eof():
            writer.write(piece())
            await writer.drain()
            sent += len(PIECE)
            await asyncio.sleep(0)
    return sent


Attack = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[int]]


@pytest.mark.parametrize("attack", [trickle, message])
async def test_what_never_ends_holds_no_more_than_the_budget(port: int, attack: Attack) -> None:
    gateway = _listening_on(port)
    before = gateway.memory_info().rss
    links = [await asyncio.open_connection("127.0.0.1", port, limit=4096) for _ in range(CLIENTS)]

    try:
        pouring = [asyncio.create_task(_attack(attack, *link)) for link in links]
        peak = before
        while not all(task.done() for task in pouring):
            await asyncio.wait(pouring, timeout=0.02)
            peak = max(peak, gateway.memory_info().rss)
        sent = sum(task.result() for task in pouring)
    finally:
        for _, writer in links:
            writer.close()

    assert sent > BUDGET
    assert peak - before < BUDGET + SLACK


async def _attack(
    attack: Attack, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> int:
    async with asyncio.timeout(60):
        return await attack(reader, writer)


def _listening_on(port: int) -> psutil.Process:
    for process in psutil.Process().children(recursive=True):
        if any(one.laddr and one.laddr.port == port for one in process.net_connections()):
            return process
    raise AssertionError(port)

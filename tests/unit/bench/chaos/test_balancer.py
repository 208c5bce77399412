"""Connections go to gateways that say they are ready, and to the next where one refuses."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable

from bench.chaos.balancer import Balancer
from bench.chaos.network import Network
from tests.doubles.processes import free_port

PATIENCE = 10.0


class Gateway:
    """Answers everything with its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.port = free_port()
        self.status = b"200 OK"

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        try:
            yield
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 " + self.status + b"\r\n\r\n" + self.name.encode())
            await writer.drain()
        writer.close()


async def ask(url: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(b"GET / HTTP/1.1\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), PATIENCE)
    writer.close()
    await writer.wait_closed()
    return answer.rpartition(b"\n")[2].decode()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not holds():
            await asyncio.sleep(0.02)


async def test_turns_are_taken_and_who_is_not_ready_is_left_out() -> None:
    one, two = Gateway("one"), Gateway("two")
    balancer = Balancer({"one": one.port, "two": two.port}, Network(dict))
    async with one.serving(), two.serving(), balancer.serving() as url:
        both = Counter([await ask(url) for _ in range(10)])
        one.status = b"503 No"
        await until(lambda: balancer.ready == {"two"})
        other = Counter([await ask(url) for _ in range(10)])
        one.status = b"200 OK"
        await until(lambda: balancer.ready == {"one", "two"})

    assert {"one": 5, "two": 5} == both
    assert {"two": 10} == other


async def test_who_refuses_is_passed_over_before_anybody_has_looked() -> None:
    gone, there = Gateway("gone"), Gateway("there")
    balancer = Balancer({"gone": gone.port, "there": there.port}, Network(dict))
    async with there.serving(), balancer.serving() as url:
        answers = [await ask(url) for _ in range(10)]

    assert ["there"] * 10 == answers

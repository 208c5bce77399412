"""How channels find peers that come late or come back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from services.backplane.rpc.channels import SERVER_OPTIONS, open_channel

PATIENCE_SECONDS = 20.0
# By then gRPC's own back-off would pause for longer than the test waits.
OUTAGE_SECONDS = 6.0
ASK = health_pb2.HealthCheckRequest()


@contextlib.asynccontextmanager
async def serving(port: int = 0) -> AsyncGenerator[int]:
    server = grpc.aio.server(options=SERVER_OPTIONS)
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    found = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield found
    finally:
        await server.stop(0)


@contextlib.asynccontextmanager
async def slow_to_greet(port: int, seconds: float) -> AsyncGenerator[int]:
    """Passes connections on, and keeps each waiting before its first byte."""
    tasks: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        onward = await asyncio.open_connection("127.0.0.1", port)
        for one in (copy(reader, onward[1]), copy(onward[0], writer)):
            tasks.add(asyncio.create_task(one))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.wait(tasks, timeout=PATIENCE_SECONDS)


@pytest.mark.slow
async def test_a_peer_that_was_down_for_long_is_found_again_within_seconds():
    async with serving() as port:
        channel = open_channel(f"127.0.0.1:{port}")
        stub = health_pb2_grpc.HealthStub(channel)
        await stub.Check(ASK, timeout=PATIENCE_SECONDS)
    back_at = asyncio.get_running_loop().time() + OUTAGE_SECONDS
    while asyncio.get_running_loop().time() < back_at:  # a caller that goes on asking
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Check(ASK, timeout=PATIENCE_SECONDS)
        await asyncio.sleep(0.05)

    async with serving(port):
        await stub.Check(ASK, wait_for_ready=True, timeout=3)

    await channel.close()


async def test_a_peer_that_is_slow_to_greet_is_reached():
    async with serving() as port, slow_to_greet(port, 0.6) as slow:
        channel = open_channel(f"127.0.0.1:{slow}")
        answer = await health_pb2_grpc.HealthStub(channel).Check(ASK, timeout=PATIENCE_SECONDS)
        await channel.close()

    assert answer.status == health_pb2.HealthCheckResponse.SERVING


@contextlib.asynccontextmanager
async def falling_silent(port: int) -> AsyncGenerator[tuple[int, asyncio.Event]]:
    """Passes connections on until the event is set; then nothing moves, and nothing is closed."""
    silence = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            if not silence.is_set():
                writer.write(data)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward = await asyncio.open_connection("127.0.0.1", port)
        for one in (copy(reader, onward[1]), copy(onward[0], writer)):
            tasks.add(asyncio.create_task(one))

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], silence
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.slow
async def test_a_stream_to_a_peer_that_froze_ends_within_seconds():
    """Its host is there and its socket is open; only keep-alive tells."""
    async with serving() as port, falling_silent(port) as (proxied, silence):
        channel = open_channel(f"127.0.0.1:{proxied}")
        try:
            stub = health_pb2_grpc.HealthStub(channel)
            watching = aiter(stub.Watch(ASK))
            await anext(watching)

            silence.set()

            async with asyncio.timeout(PATIENCE_SECONDS):
                with pytest.raises(grpc.aio.AioRpcError) as ended:
                    await anext(watching)
            assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
        finally:
            await channel.close()

"""The gateway's own gRPC call: against grpc's server, and against peers that misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client import CollectorRegistry

from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.backplane.rpc.channels import SERVER_OPTIONS
from services.gateway.transports import http2, keepalive
from services.gateway.transports.connect import open_call
from services.gateway.transports.grpc_call import BidiCall
from services.gateway.transports.http2 import Frame, FrameReader, frame

PATH = "/test.Echo/Session"
PATIENCE_SECONDS = 60.0
FAULTS = Faults(CollectorRegistry(), "test")


class Ear:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[bytes] = asyncio.Queue()
        self.end: asyncio.Future[FleetError | None] = asyncio.get_running_loop().create_future()
        self.turns = 0
        self.pauses: list[int] = []

    def message(self, data: bytes) -> None:
        self.messages.put_nowait(data)

    def caught_up(self) -> None:
        self.pauses.append(self.messages.qsize())

    def writable(self) -> None:
        self.turns += 1

    def ended(self, error: FleetError | None) -> None:
        self.end.set_result(error)

    async def next(self) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.messages.get()

    async def failure(self) -> FleetError:
        async with asyncio.timeout(PATIENCE_SECONDS):
            error = await self.end
        assert error is not None
        return error


Behaviour = Callable[[AsyncIterator[bytes], Any], AsyncIterator[bytes]]


class GrpcServer:
    """grpc's own server with one method, which deals in bytes."""

    def __init__(self) -> None:
        self.behaviour: Behaviour = echo
        self.left = asyncio.Event()
        self.address = ""
        self._server = grpc.aio.server(options=SERVER_OPTIONS)

    async def start(self, address: str) -> None:
        async def serve(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            try:
                async for message in self.behaviour(requests, context):
                    yield message
            finally:
                self.left.set()

        handler: Any = grpc.stream_stream_rpc_method_handler(serve)
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("test.Echo", {"Session": handler}),)
        )
        port = self._server.add_insecure_port(address)
        self.address = address if address.startswith("unix:") else f"127.0.0.1:{port}"
        await self._server.start()

    async def stop(self, grace: float | None = None) -> None:
        await self._server.stop(grace)


async def echo(requests: AsyncIterator[bytes], _: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


@pytest.fixture(params=["tcp", "unix"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[GrpcServer]:
    server = GrpcServer()
    await server.start("127.0.0.1:0" if request.param == "tcp" else f"unix:{tmp_path}/neuron")
    yield server
    await server.stop()


async def test_messages_go_and_come_in_order(server: GrpcServer) -> None:
    ear = Ear()
    call = await open_call(server.address, PATH, ear, FAULTS)

    for word in (b"", b"one", b"two"):
        call.send(word)

    assert [await ear.next() for _ in range(3)] == [b"", b"one", b"two"]
    call.cancel()


async def test_messages_that_came_together_are_followed_by_one_pause() -> None:
    async def script(peer: RawPeer) -> None:
        await peer.greet()
        message = frame(http2.DATA, 0, 1, b"\0\0\0\0\1x")
        peer.writer.write(message * 3 + frame(http2.RST_STREAM, 0, 1, b"\0\0\0\7"))
        await peer.writer.drain()

    _, ear, server = await against(script)
    await ear.failure()

    assert ear.pauses == [3]
    server.close()


async def test_messages_larger_than_any_window_pass(server: GrpcServer) -> None:
    """Both ways: more than the windows of either side, so that both have to be given back."""
    ear = Ear()
    call = await open_call(server.address, PATH, ear, FAULTS)
    large = bytes(range(256)) * (20 << 12)

    call.send(large)
    assert not call.is_writable

    assert await ear.next() == large
    assert call.is_writable
    assert ear.turns > 0
    call.cancel()


async def test_a_cancelled_call_ends_at_the_peer(server: GrpcServer) -> None:
    ear = Ear()
    call = await open_call(server.address, PATH, ear, FAULTS)
    call.send(b"x")
    await ear.next()

    call.cancel()
    call.cancel()

    async with asyncio.timeout(PATIENCE_SECONDS):
        await server.left.wait()
    assert not ear.end.done()


async def test_a_status_is_told_with_its_message(server: GrpcServer) -> None:
    async def refuse(_: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "zu viel für 1 % davon")
        yield b""

    server.behaviour = refuse
    ear = Ear()
    await open_call(server.address, PATH, ear, FAULTS)

    error = await ear.failure()

    assert (error.reason, error.message) == (Reason.QUEUE_FULL, "zu viel für 1 % davon")


async def test_a_method_that_nobody_serves_is_not_supported(server: GrpcServer) -> None:
    ear = Ear()
    await open_call(server.address, "/test.Echo/Other", ear, FAULTS)

    assert (await ear.failure()).reason is Reason.NOT_SUPPORTED


async def test_a_peer_that_ends_well_says_so(server: GrpcServer) -> None:
    async def leave(_: AsyncIterator[bytes], __: Any) -> AsyncIterator[bytes]:
        yield b"bye"

    server.behaviour = leave
    ear = Ear()
    await open_call(server.address, PATH, ear, FAULTS)

    assert await ear.next() == b"bye"
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await ear.end is None


async def test_a_call_goes_on_while_its_server_drains(server: GrpcServer) -> None:
    ear = Ear()
    call = await open_call(server.address, PATH, ear, FAULTS)
    call.send(b"before")
    await ear.next()
    stopping = asyncio.create_task(server.stop(PATIENCE_SECONDS))
    await asyncio.sleep(0)

    call.send(b"behind")

    assert await ear.next() == b"behind"
    call.cancel()
    await stopping


@pytest.mark.parametrize("address", ["127.0.0.1:1", "unix:/nowhere/at/all", "no address"])
async def test_where_nobody_listens_the_neuron_is_lost(address: str) -> None:
    with pytest.raises(FleetError) as caught:
        await open_call(address, PATH, Ear(), FAULTS)

    assert caught.value.reason is Reason.NEURON_LOST


# Peers that misbehave.

Script = Callable[["RawPeer"], Awaitable[None]]


class RawPeer:
    """One connection, frame by frame, without grpc."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._frames = FrameReader()
        self._waiting: list[Frame] = []
        self.writer = writer

    async def greet(self) -> None:
        await self._reader.readexactly(len(http2.PREFACE))
        self.writer.write(http2.settings({}))

    async def next(self, kind: int) -> Frame:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                while self._waiting:
                    one = self._waiting.pop(0)
                    if one.kind == kind:
                        return one
                data = await self._reader.read(1 << 16)
                assert data, "the gateway has hung up"
                self._waiting += self._frames.feed(data)


async def against(script: Script) -> tuple[BidiCall, Ear, asyncio.Server]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(RawPeer(reader, writer))
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    ear = Ear()
    port = server.sockets[0].getsockname()[1]
    return await open_call(f"127.0.0.1:{port}", PATH, ear, FAULTS), ear, server


async def fails(script: Script) -> FleetError:
    _, ear, server = await against(script)
    error = await ear.failure()
    server.close()
    return error


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n" * 4,
        frame(http2.RST_STREAM, 0, 1, b"\0\0\0\7"),
        frame(http2.GOAWAY, 0, 0, b"\0" * 8),
        frame(http2.DATA, http2.END_STREAM, 1),
        frame(http2.DATA, 0, 1, b"\1\0\0\0\1x"),
        frame(http2.DATA, 0, 1, b"\0\xff\xff\xff\xffx"),
        frame(http2.HEADERS, http2.END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"),
        frame(http2.WINDOW_UPDATE, 0, 1, b"\0"),
        frame(http2.SETTINGS, 0, 0, b"\0"),
    ],
    ids=[
        "hangs-up",
        "speaks-http1",
        "resets",
        "goes-away",
        "ends-without-status",
        "compresses",
        "announces-4-gib",
        "sends-headers-nobody-reads",
        "sends-half-a-window",
        "sends-half-a-setting",
    ],
)
async def test_what_a_peer_breaks_ends_the_call(said: bytes) -> None:
    async def script(peer: RawPeer) -> None:
        await peer.greet()
        peer.writer.write(said)
        await peer.writer.drain()

    assert (await fails(script)).reason is Reason.NEURON_LOST


async def test_a_ping_is_answered_in_kind() -> None:
    answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def script(peer: RawPeer) -> None:
        await peer.greet()
        peer.writer.write(frame(http2.PING, 0, 0, b"12345678"))
        answered.set_result((await peer.next(http2.PING)).payload)

    call, _, server = await against(script)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await answered == b"12345678"
    call.cancel()
    server.close()


async def test_a_silent_peer_is_asked_and_then_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepalive, "_QUIET_SECONDS", 0.05)
    monkeypatch.setattr(keepalive, "_ANSWER_SECONDS", 0.05)
    pings: list[Frame] = []

    async def script(peer: RawPeer) -> None:
        await peer.greet()
        while True:
            one = await peer.next(http2.PING)
            pings.append(one)
            if len(pings) == 1:
                peer.writer.write(frame(http2.PING, http2.ACK, 0, one.payload))

    error = await fails(script)

    assert error.reason is Reason.NEURON_LOST
    assert len(pings) == 2


async def test_a_peer_that_takes_nothing_is_sent_nothing() -> None:
    """Its window is closed: what is sent waits, and leaves when the window opens."""
    closed: asyncio.Future[RawPeer] = asyncio.get_running_loop().create_future()
    done = asyncio.Event()

    async def script(peer: RawPeer) -> None:
        await peer.greet()
        peer.writer.write(http2.settings({http2.INITIAL_WINDOW_SIZE: 0}))
        await peer.next(http2.SETTINGS)
        await peer.next(http2.SETTINGS)
        closed.set_result(peer)
        await done.wait()

    call, ear, server = await against(script)
    async with asyncio.timeout(PATIENCE_SECONDS):
        peer = await closed
    call.send(b"x" * 20)
    assert not call.is_writable

    peer.writer.write(frame(http2.WINDOW_UPDATE, 0, 1, b"\0\0\0\x0a"))
    assert len((await peer.next(http2.DATA)).payload) == 10
    assert not call.is_writable
    peer.writer.write(frame(http2.WINDOW_UPDATE, 0, 1, b"\0\0\x0a\0"))
    assert len((await peer.next(http2.DATA)).payload) == 15

    assert call.is_writable
    assert ear.turns == 1
    done.set()
    call.cancel()
    server.close()

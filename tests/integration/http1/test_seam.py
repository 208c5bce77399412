"""Pins what the codec leans on in Hypercorn and asyncio."""

import asyncio
import inspect
import socket
from importlib.metadata import version
from typing import Any

import hypercorn.protocol
import pytest
from hypercorn.asyncio.run import worker_serve
from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.asyncio.worker_context import AsyncioSingleTask, WorkerContext
from hypercorn.config import Config
from hypercorn.protocol import ProtocolWrapper
from hypercorn.protocol.h11 import H11Protocol
from starlette.types import Receive, Scope, Send

from services.gateway.http1.hypercorn.codec import CodecConfig, HttptoolsCodec
from services.gateway.http1.hypercorn.install import choose_codec, install
from services.gateway.server import HttpServer, ListenError, ServerOptions, build_config


def test_the_seam_is_that_of_hypercorn_0_18() -> None:
    names = ["app", "config", "context", "task_group", "connection_state"]
    names += ["ssl", "client", "server", "send"]

    assert version("hypercorn").startswith("0.18.")
    assert list(inspect.signature(H11Protocol).parameters) == names
    assert list(inspect.signature(HttptoolsCodec).parameters) == names
    assert install()
    assert vars(hypercorn.protocol)["H11Protocol"] is choose_codec
    wrapper = inspect.getsource(ProtocolWrapper)
    assert "self.protocol = H11Protocol(" in wrapper


def test_the_names_that_the_seam_touches_are_there() -> None:
    source = inspect.getsource(TCPServer)
    used = [
        "self.reader = reader",
        "self.writer = writer",
        "self.idle_task = AsyncioSingleTask()",
        "self._task_group = task_group",
        (
            "await self.protocol.initiate()\n"
            "                await self.idle_task.restart(task_group, self._idle_timeout)"
        ),
        "await self.protocol.handle(Closed())",
        "async def _read_data(self)",
        "async def protocol_send(self, event",
    ]

    assert [line for line in used if line not in source] == []
    assert "self._handle.cancel()" in inspect.getsource(AsyncioSingleTask.stop)
    assert "async with TaskGroup(self.loop) as task_group:" in source
    spawning = inspect.getsource(TaskGroup.spawn_app)
    assert "return app_queue.put" in spawning
    assert "asyncio.Queue(config.max_app_queue_size)" in spawning
    assert "await asyncio.start_server(" in inspect.getsource(worker_serve)
    assert "self._task_group.create_task" in inspect.getsource(TaskGroup.spawn)
    loop = asyncio.new_event_loop()
    reader: Any = asyncio.StreamReader(loop=loop)
    assert reader._buffer == b""
    assert callable(reader._maybe_resume_transport)
    loop.close()


def test_stock_configurations_get_the_stock_codec() -> None:
    install()
    plain, switched_off = Config(), build_config(ServerOptions(listen="x:1", http1_codec="stock"))
    rest: tuple[Any, ...] = (WorkerContext(None), None, {}, False, None, None, None)

    assert isinstance(choose_codec(None, plain, *rest), H11Protocol)
    assert isinstance(switched_off, CodecConfig)
    assert isinstance(choose_codec(None, switched_off, *rest), H11Protocol)


def test_another_hypercorn_keeps_its_own_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(scope: Scope, receive: Receive, send: Send) -> None: ...

    def codec() -> str:
        server = HttpServer(nothing, ServerOptions(listen="127.0.0.1:0"))
        server.close()
        return server.http1_codec

    assert codec() == "direct"
    monkeypatch.setattr("services.gateway.http1.hypercorn.install.version", lambda _: "0.19.0")
    assert codec() == "stock"


def test_a_taken_port_is_named() -> None:
    async def nothing(scope: Scope, receive: Receive, send: Send) -> None: ...

    taken = socket.create_server(("127.0.0.1", 0))
    listen = f"127.0.0.1:{taken.getsockname()[1]}"
    try:
        with pytest.raises(ListenError, match=listen):
            HttpServer(nothing, ServerOptions(listen=listen))
    finally:
        taken.close()

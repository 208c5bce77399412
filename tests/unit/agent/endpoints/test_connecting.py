import asyncio
from typing import Any, get_args

import pytest

from services.agent.core.settings import EndpointSettings, WireApi
from services.agent.endpoints.connecting import connect
from services.agent.endpoints.endpoint import EndpointError, ModelRequest


@pytest.mark.parametrize("wire", get_args(WireApi))
async def test_a_stream_that_is_cut_is_not_an_endpoint_that_cannot_be_reached(wire: Any):
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 999\r\n\r\n"
        writer.write(head + b": hello\n\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(half, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = EndpointSettings(name="e", base_url=f"http://127.0.0.1:{port}", wire_api=wire)
        endpoint = connect(settings)
        with pytest.raises(EndpointError, match="in the middle of its answer"):
            async for _ in endpoint.stream(ModelRequest("m", "s", [])):
                pass
        await endpoint.close()

import asyncio
import json
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from services.agent.core.settings import EndpointSettings, WireApi
from services.agent.endpoints.chat import ChatReader
from services.agent.endpoints.connecting import connect
from services.agent.endpoints.endpoint import CallDelta, CallStarted, EndpointError, ModelRequest


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


def test_parallel_calls_that_share_an_index_are_told_apart_by_their_ids():
    def chunk(call_id: str | None, name: str | None, arguments: str) -> Any:
        function = SimpleNamespace(name=name, arguments=arguments)
        call = SimpleNamespace(index=0, id=call_id, function=function)
        delta = SimpleNamespace(content=None, refusal=None, tool_calls=[call])
        choice = SimpleNamespace(delta=delta, finish_reason=None)
        return SimpleNamespace(usage=None, choices=[choice])

    reading = ChatReader()
    chunks = [chunk("a", "bash", "{"), chunk(None, None, "}"), chunk("b", "grep", json.dumps({}))]

    events = [event for each in chunks for event in reading.events(each)]

    assert [
        CallStarted(0, "a", "bash"), CallDelta(0, "{"), CallDelta(0, "}"),
        CallStarted(1, "b", "grep"), CallDelta(1, "{}"),
    ] == events  # fmt: skip

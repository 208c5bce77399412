"""One turn's end by what nobody foresaw is that turn's alone."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from prometheus_client import CollectorRegistry

from services.backplane.process.faults import Faults
from services.gateway.dialects.openai_responses.store.store import ResponsesStore
from services.gateway.dialects.openai_responses.websocket.socket import ResponsesSocket
from services.gateway.http1.budget import BodyBudget


async def test_a_turn_that_breaks_ends_alone_and_says_so():
    asked: list[bytes] = []
    told: list[dict[str, Any]] = []
    answered = asyncio.Event()
    messages = asyncio.Queue[dict[str, Any]]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        asked.append((await receive())["body"])
        if len(asked) == 1:
            raise RuntimeError("a defect, with a prompt in its words")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        body = b'data: {"type": "response.completed"}\n\n'
        await send({"type": "http.response.body", "body": body})

    async def send(message: Any) -> None:
        if message["type"] == "websocket.send":
            told.append(json.loads(message.get("text") or message["bytes"]))
            if told[-1]["type"] == "response.completed":
                answered.set()

    store = ResponsesStore(None)
    metrics = CollectorRegistry()
    faults = Faults(metrics, "gateway")
    socket = ResponsesSocket(
        store,
        lambda _: app,
        idle_seconds=60,
        faults=faults,
        budget=BodyBudget(1 << 20),
        most_items=100,
    )
    messages.put_nowait({"type": "websocket.connect"})
    for _ in range(2):
        text = json.dumps({"type": "response.create", "input": "Hi"})
        messages.put_nowait({"type": "websocket.receive", "text": text})
    scope = {
        "type": "websocket",
        "scheme": "ws",
        "path": "/v1/responses",
        "headers": [],
        "query_string": b"",
    }
    serving = asyncio.create_task(socket(scope, messages.get, send))
    try:
        async with asyncio.timeout(60):
            await answered.wait()
    finally:
        messages.put_nowait({"type": "websocket.disconnect"})
        await serving
        store.close()

    assert [each["type"] for each in told] == ["error", "response.completed"]
    assert (told[0]["status"], told[0]["error"]["code"]) == (500, "internal_error")
    assert "prompt" not in json.dumps(told[0])
    count = metrics.get_sample_value(
        "cortex_gateway_unforeseen_errors_total", {"place": "websocket-turn"}
    )
    assert count == 1

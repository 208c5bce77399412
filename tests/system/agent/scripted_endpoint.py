"""An HTTP endpoint that answers by script, as real server-sent events in three dialects."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Self


@dataclass
class Call:
    name: str
    arguments: dict[str, Any] | str
    id: str = "call_1"

    @property
    def json(self) -> str:
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass
class Answer:
    """One scripted answer.

    `hold_before` is waited for before the headers, `hold` after the text; `broken` ends the
    stream without its end. `piece` is how many characters come at once.
    """

    text: str = ""
    thought: str = ""
    calls: list[Call] = field(default_factory=list)
    stop: str = "stop"
    status: int = 200
    error: dict[str, Any] | None = None
    hold_before: asyncio.Event | None = None
    hold: asyncio.Event | None = None
    broken: bool = False
    usage: tuple[int, int] = (100, 20)
    piece: int = 7


class ScriptedEndpoint:
    """Gives the answers in order; the last one again when they run out."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.arrived = asyncio.Condition()
        self.closed_early = 0
        self.capabilities: list[str] | None = None  # of the first model listed
        self.others: tuple[str, ...] = ("other", "llama3:8b")  # models, of unknown capabilities
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def requested(self, count: int) -> None:
        async with asyncio.timeout(60), self.arrived:
            await self.arrived.wait_for(lambda: len(self.requests) >= count)

    def answer_to(self, request: dict[str, Any]) -> Answer:
        """Chooses the answer to a request that is not among `requests` yet."""
        return self.answers[min(len(self.requests), len(self.answers) - 1)]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await self._answer(reader, writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        lines = head.split("\r\n")
        method, target, _ = lines[0].split(" ")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        path = target.split("?")[0]
        if method == "GET":
            model = {"id": "scripted", "object": "model", "type": "model", "created": 0,
                     "owned_by": "test", "display_name": "x", "created_at": "2025-01-01T00:00:00Z",
                     "max_model_len": 8192}  # fmt: skip
            models = [{**model, "capabilities": self.capabilities}]
            models += [{**model, "id": name} for name in self.others]
            self._respond(writer, 200, {"object": "list", "data": models, "has_more": False})
            await writer.drain()
            return
        async with self.arrived:
            request = json.loads(body)
            answer = self.answer_to(request)
            self.requests.append(request)
            self.headers.append(headers)
            self.paths.append(path)
            self.arrived.notify_all()
        gone = asyncio.create_task(reader.read())
        sending = asyncio.create_task(self._send(writer, answer, path))
        await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
        if not sending.done():
            self.closed_early += 1
            sending.cancel()
        gone.cancel()

    async def _send(self, writer: asyncio.StreamWriter, answer: Answer, path: str) -> None:
        if answer.hold_before is not None:
            await answer.hold_before.wait()
        if answer.status != 200:
            self._respond(writer, answer.status, {"error": answer.error})
            await writer.drain()
            return
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
        )
        encode = {
            "/v1/chat/completions": chat,
            "/v1/responses": responses,
            "/v1/messages": messages,
        }
        for event in encode[path](answer):
            if event is HOLD:
                await writer.drain()
                if answer.hold is not None:
                    await answer.hold.wait()
                continue
            name = f"event: {event['type']}\n" if "type" in event else ""
            writer.write(f"{name}data: {json.dumps(event)}\n\n".encode())
            await writer.drain()
            await asyncio.sleep(0)
        if path == "/v1/chat/completions" and not answer.broken:
            writer.write(b"data: [DONE]\n\n")
        await writer.drain()

    @staticmethod
    def _respond(writer: asyncio.StreamWriter, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\n"
        writer.write(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)


HOLD: dict[str, Any] = {}


def pieces(text: str, size: int) -> Iterator[str]:
    for start in range(0, len(text), size):
        yield text[start : start + size]


def chat(answer: Answer) -> Iterator[dict[str, Any]]:
    def chunk(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "scripted",
                "choices": [choice]}  # fmt: skip

    yield chunk({"role": "assistant", "content": ""})
    for piece in pieces(answer.thought, answer.piece):
        yield chunk({"reasoning_content": piece})
    for piece in pieces(answer.text, answer.piece):
        yield chunk({"content": piece})
    yield HOLD
    for index, call in enumerate(answer.calls):
        function = {"name": call.name, "arguments": ""}
        yield chunk(
            {
                "tool_calls": [
                    {"index": index, "id": call.id, "type": "function", "function": function}
                ]
            }
        )
        for piece in pieces(call.json, answer.piece):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    if answer.broken:
        return
    yield chunk({}, "tool_calls" if answer.calls and answer.stop == "stop" else answer.stop)
    prompt, completion = answer.usage
    usage = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }
    yield {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "scripted",
           "choices": [], "usage": usage}  # fmt: skip


def responses(answer: Answer) -> Iterator[dict[str, Any]]:
    base = {"id": "r", "object": "response", "created_at": 0, "model": "scripted", "output": [],
            "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}  # fmt: skip
    yield {"type": "response.created", "response": {**base, "status": "in_progress"}}
    if answer.thought:
        item = {"type": "reasoning", "id": "rs_1", "summary": []}
        yield {"type": "response.output_item.added", "output_index": 0, "item": item}
        for piece in pieces(answer.thought, answer.piece):
            yield {"type": "response.reasoning_text.delta", "item_id": "rs_1", "output_index": 0,
                   "content_index": 0, "delta": piece}  # fmt: skip
        done = {**item, "encrypted_content": "sealed"}
        yield {"type": "response.output_item.done", "output_index": 0, "item": done}
    for piece in pieces(answer.text, answer.piece):
        yield {"type": "response.output_text.delta", "item_id": "m", "output_index": 1,
               "content_index": 0, "delta": piece, "logprobs": []}  # fmt: skip
    yield HOLD
    for index, call in enumerate(answer.calls, 2):
        item = {"type": "function_call", "id": f"fc_{call.id}", "call_id": call.id,
                "name": call.name, "arguments": "", "status": "in_progress"}  # fmt: skip
        yield {"type": "response.output_item.added", "output_index": index, "item": item}
        for piece in pieces(call.json, answer.piece):
            yield {"type": "response.function_call_arguments.delta", "item_id": item["id"],
                   "output_index": index, "delta": piece}  # fmt: skip
        done = {**item, "arguments": call.json, "status": "completed"}
        yield {"type": "response.output_item.done", "output_index": index, "item": done}
    if answer.broken:
        return
    usage = {"input_tokens": answer.usage[0], "output_tokens": answer.usage[1],
             "total_tokens": sum(answer.usage), "input_tokens_details": {"cached_tokens": 0},
             "output_tokens_details": {"reasoning_tokens": 0}}  # fmt: skip
    yield {
        "type": "response.completed",
        "response": {**base, "status": "completed", "usage": usage},
    }


def messages(answer: Answer) -> Iterator[dict[str, Any]]:
    message: dict[str, Any] = {"id": "m", "type": "message", "role": "assistant", "model": "scripted", "content": [],
               "stop_reason": None, "stop_sequence": None,
               "usage": {"input_tokens": answer.usage[0], "output_tokens": 0}}  # fmt: skip
    yield {"type": "message_start", "message": message}
    yield {"type": "ping"}
    index = 0
    if answer.thought:
        yield {"type": "content_block_start", "index": 0,
               "content_block": {"type": "thinking", "thinking": "", "signature": ""}}  # fmt: skip
        for piece in pieces(answer.thought, answer.piece):
            yield {"type": "content_block_delta", "index": 0,
                   "delta": {"type": "thinking_delta", "thinking": piece}}  # fmt: skip
        yield {"type": "content_block_delta", "index": 0,
               "delta": {"type": "signature_delta", "signature": "sealed"}}  # fmt: skip
        yield {"type": "content_block_stop", "index": 0}
        index = 1
    yield {
        "type": "content_block_start",
        "index": index,
        "content_block": {"type": "text", "text": ""},
    }
    for piece in pieces(answer.text, answer.piece):
        yield {
            "type": "content_block_delta",
            "index": index,
            "delta": {"type": "text_delta", "text": piece},
        }
    yield HOLD
    yield {"type": "content_block_stop", "index": index}
    for number, call in enumerate(answer.calls, index + 1):
        block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
        yield {"type": "content_block_start", "index": number, "content_block": block}
        for piece in pieces(call.json, answer.piece):
            yield {"type": "content_block_delta", "index": number,
                   "delta": {"type": "input_json_delta", "partial_json": piece}}  # fmt: skip
        yield {"type": "content_block_stop", "index": number}
    if answer.broken:
        return
    stop = {"stop": "tool_use" if answer.calls else "end_turn", "length": "max_tokens"}[answer.stop]
    yield {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None},
           "usage": {"output_tokens": answer.usage[1]}}  # fmt: skip
    yield {"type": "message_stop"}

"""Another server with OpenAI's API that answers by a script: every fault, on demand."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any, Self


def chunk(content: str = "", *, finish: str | None = None, **delta: Any) -> bytes:
    """One chunk of a chat."""
    if content:
        delta["content"] = content
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return event({"object": "chat.completion.chunk", "choices": [choice]})


def usage(prompt: int, completion: int) -> bytes:
    counts = {"prompt_tokens": prompt, "completion_tokens": completion}
    return event({"choices": [], "usage": counts})


def event(found: Any) -> bytes:
    return b"data: " + json.dumps(found).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
WHOLE = (chunk(role="assistant"), chunk("Far"), chunk(" away"), chunk(finish="stop"))


@dataclasses.dataclass
class Answer:
    """What one request gets.

    Attributes:
        pieces: what is written behind the head, one after the other.
        status: of HTTP.
        headers: besides the type of the content.
        body: of what is no stream.
        gate: waited for before each piece behind the first.
        head_gate: waited for before the head.
        drip: written again and again behind the pieces, without an end.
        cut: the connection is closed behind the pieces, within the answer.
    """

    pieces: Sequence[bytes] = (*WHOLE, usage(7, 2), DONE)
    status: int = 200
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    body: bytes = b""
    gate: asyncio.Event | None = None
    head_gate: asyncio.Event | None = None
    drip: bytes = b""
    cut: bool = False


@dataclasses.dataclass
class Asked:
    """One request."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class ScriptedUpstream:
    """Serves on loopback; answers are taken in turn, the last one stays.

    Args:
        port: 0: any that is free.
    """

    def __init__(self, port: int = 0) -> None:
        self._port = port
        self.answers: list[Answer] = [Answer()]
        self.asked: list[Asked] = []
        self.open = 0
        self.left = 0
        self.changed = asyncio.Condition()
        self.url = ""
        self._server: asyncio.Server
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/v1"

    async def stop(self) -> None:
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def until(self, holds: Any, seconds: float = 10.0) -> None:
        """Waits until a condition on this server holds."""
        async with asyncio.timeout(seconds), self.changed:
            await self.changed.wait_for(holds)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (one.partition(":") for one in head[1:])}
        body = json.loads(await reader.readexactly(int(headers.get("content-length", "0"))))
        self.asked.append(Asked(head[0].split()[1], headers, body))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        self.open += 1
        await self._tell()
        writing = asyncio.create_task(self._write(answer, writer))
        gone = asyncio.create_task(reader.read(1))  # clients send nothing more before the end
        try:
            await asyncio.wait({writing, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not writing.done():
                self.left += 1
                return False
            await writing
            return False
        finally:
            for task in (writing, gone):
                task.cancel()
            await asyncio.gather(writing, gone, return_exceptions=True)
            self.open -= 1
            await self._tell()

    async def _write(self, answer: Answer, writer: asyncio.StreamWriter) -> None:
        if answer.head_gate is not None:
            await answer.head_gate.wait()
        kind = "application/json" if answer.body else "text/event-stream"
        headers = {"content-type": kind, "connection": "close", **answer.headers}
        if answer.body:
            headers["content-length"] = str(len(answer.body))
        elif answer.cut:
            headers["transfer-encoding"] = "chunked"
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {answer.status} Told\r\n{lines}\r\n".encode() + answer.body)
        for index, piece in enumerate(() if answer.body else answer.pieces):
            if index and answer.gate is not None:
                await answer.gate.wait()
            framed = b"%x\r\n%s\r\n" % (len(piece), piece) if answer.cut else piece
            writer.write(framed)
            await writer.drain()
        while answer.drip:
            writer.write(answer.drip)
            await writer.drain()
            await asyncio.sleep(0.02)
        await writer.drain()

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

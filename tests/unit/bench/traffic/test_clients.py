"""What the official SDKs make of servers that break off, refuse, hang or tell an error."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator

import pytest

from bench.traffic.clients import SdkClients
from bench.traffic.exchange import Exchange, Outcome
from bench.traffic.load import question

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
TOLD = {"error": {"message": "gone", "type": "server_error", "code": "x"}}
REFUSED = json.dumps(TOLD).encode()


def chunk(data: object) -> bytes:
    body = f"data: {json.dumps(data)}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(body), body)


def piece(text: str | None, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return chunk({**head, "choices": [choice]})


ANSWERS = {
    "whole": (HEAD + piece("Alpha") + piece(None, "length") + b"0\r\n\r\n", Outcome.WHOLE),
    "other words": (HEAD + piece("Beta") + piece(None, "length") + b"0\r\n\r\n", Outcome.WRONG),
    "no finish": (HEAD + piece("Al") + b"0\r\n\r\n", Outcome.CUT),
    "broken off": (HEAD + piece("Al"), Outcome.CUT),
    "broken off behind its head": (HEAD, Outcome.CUT),
    "told": (HEAD + piece("Al") + chunk(TOLD) + b"0\r\n\r\n", Outcome.TOLD),
    "refused": (
        b"HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        % (len(REFUSED), REFUSED),
        Outcome.REFUSED,
    ),
    "nothing": (b"", Outcome.UNREACHED),
}


@contextlib.asynccontextmanager
async def answering(answer: bytes, *, hang: bool = False) -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        with contextlib.suppress(OSError):
            await writer.drain()
            if hang:
                await reader.read()
                await asyncio.sleep(60)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def ask(url: str, patience: float = 30.0) -> Exchange:
    asked = question("alpha", 1)
    made = Exchange("OpenAI, streamed", asked.expected, time.monotonic())
    async with SdkClients(url, key="k", patience_seconds=patience) as clients:
        await clients.ask(made.kind, asked, made)
    return made


@pytest.mark.parametrize("name", ANSWERS)
async def test_each_end_has_its_name(name: str) -> None:
    answer, outcome = ANSWERS[name]
    async with answering(answer) as url:
        made = await ask(url)

    assert outcome is made.outcome, made


async def test_who_says_nothing_is_given_up() -> None:
    async with answering(HEAD, hang=True) as url:
        made = await ask(url, patience=0.5)

    assert Outcome.SILENT is made.outcome

"""The app behind the codec's tests."""

import asyncio
import json
import socket
import threading
from typing import cast

from starlette.types import Message, Receive, Scope, Send

from tests.integration.http1.serving import DEADLINE_SECONDS


class App:
    """What each path does; threading events say how far it has come."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.go_on = threading.Event()
        self.left = threading.Event()
        self.finished = threading.Event()
        self.sent_bytes = 0
        self.paths: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
        elif scope["type"] == "websocket":
            await echo_websocket(receive, send)
        else:
            self.paths.append(scope["path"])
            name = scope["path"].strip("/").split("/")[0] or "echo"
            await getattr(self, name)(scope, receive, send)

    async def wait(self) -> None:
        """Waits for the test, without a thread of its own."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not self.go_on.is_set():
                await asyncio.sleep(0.005)

    async def echo(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, await whole(receive))

    async def where(self, scope: Scope, receive: Receive, send: Send) -> None:
        facts = {
            "path": scope["path"],
            "raw_path": scope["raw_path"].decode(),
            "query": scope["query_string"].decode(),
            "method": scope["method"],
            "version": scope["http_version"],
            "scheme": scope["scheme"],
            "client": scope["client"][0],
            "headers": [[n.decode(), v.decode("latin-1")] for n, v in scope["headers"]],
        }
        await answer(send, json.dumps(facts).encode())

    async def piecewise(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        first = message["body"]
        self.reached.set()
        await answer(send, first + b"|" + await whole(receive))

    async def ignores_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"no need")

    async def waits_to_read(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.reached.set()
        await self.wait()
        body = await whole(receive)
        await answer(send, str(len(body)).encode())

    async def watches(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Streams one piece and then waits for the client to leave."""
        await whole(receive)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        self.reached.set()
        message = await receive()
        assert message["type"] == "http.disconnect"
        self.left.set()

    async def floods(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(512):
            await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
            self.sent_bytes += 65536
            self.reached.set()
        await send({"type": "http.response.body", "body": b""})
        self.finished.set()

    async def slow(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.reached.set()
        await self.wait()
        await answer(send, b"done at last")

    async def stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"one ", b"", b"two ", b"three"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    async def forever(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        self.reached.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.left.set()

    async def raises(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    async def raises_midway(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise ZeroDivisionError

    async def returns(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()

    async def splits_headers(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"", [(b"x", b"1\r\nset-cookie: stolen")])

    async def too_long(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"more than two", [(b"content-length", b"2")])

    async def too_short(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"few", [(b"content-length", b"10")])

    async def empty(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b"must not be seen"})

    async def closes(self, scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"bye", [(b"connection", b"close")])

    async def nodelay(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = scope["extensions"]["cortex.direct"]
        sock = exchange._writer._transport.get_extra_info("socket")
        option = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await answer(send, str(int(bool(option))).encode())


async def lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def echo_websocket(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": message["text"].upper()})


async def whole(receive: Receive) -> bytes:
    body = b""
    while True:
        message: Message = await receive()
        body += cast("bytes", message.get("body", b""))
        if not message.get("more_body", False):
            return body


async def answer(send: Send, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": headers or []})
    await send({"type": "http.response.body", "body": body})

"""Uploads: whole, slow, waiting, and not wanted."""

import contextlib
import json

from services.gateway.http1.limits import Http1Limits
from tests.integration.http1.app import App
from tests.integration.http1.serving import DEADLINE_SECONDS, Client, Serve, chunked, post


def test_chunked_uploads_arrive_whole(client: Client) -> None:
    client.send(chunked(b"a" * 5, b"b" * 3000, b"c"))

    assert client.reply().body == b"a" * 5 + b"b" * 3000 + b"c"
    assert client.post(b"next").body == b"next"


def test_trailers_and_chunk_extensions_are_read_over(client: Client) -> None:
    client.send(
        b"POST /where HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n"
        b"1;ext=1\r\na\r\n0\r\nx-trailer: t\r\n\r\n"
    )

    names = [name for name, _ in json.loads(client.reply().body)["headers"]]

    assert names == ["host", "transfer-encoding"]
    assert client.post(b"next").body == b"next"


def test_a_slow_upload_reaches_the_app_piece_by_piece(client: Client, app: App) -> None:
    client.send(b"POST /piecewise HTTP/1.1\r\nhost: t\r\ncontent-length: 6\r\n\r\nabc")
    assert app.reached.wait(DEADLINE_SECONDS)
    client.send(b"def")

    assert client.reply().body == b"abc|def"


def test_a_request_that_comes_byte_by_byte_is_whole(client: Client) -> None:
    for byte in post(b"xyz"):
        client.send(bytes([byte]))

    assert client.reply().body == b"xyz"


def test_an_upload_waits_until_the_app_reads(serve: Serve, app: App) -> None:
    size = 48 * 1024 * 1024
    with Client(serve(Http1Limits(body_bytes=size)).port) as client:
        client.send(
            f"POST /waits_to_read HTTP/1.1\r\nhost: t\r\ncontent-length: {size}\r\n\r\n".encode()
        )
        assert app.reached.wait(DEADLINE_SECONDS)
        client.socket.settimeout(0.5)
        taken = 0
        with contextlib.suppress(TimeoutError):
            while taken < size:
                taken += client.socket.send(b"x" * min(65536, size - taken))
        app.go_on.set()
        client.socket.settimeout(DEADLINE_SECONDS)
        client.send(b"x" * (size - taken))

        assert client.reply().body == str(size).encode()
        # The kernel's two socket buffers may hold some; the server holds a few dozen KiB.
        assert taken < 16 * 1024 * 1024


def test_100_continue_is_sent_when_the_app_reads(client: Client) -> None:
    client.send(post(b"", "/", "expect: 100-continue").replace(b"length: 0", b"length: 4"))

    assert client.read_until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"body")
    assert client.reply().body == b"body"


def test_100_continue_is_not_sent_when_the_app_answers_at_once(client: Client) -> None:
    head = post(b"", "/ignores_body", "expect: 100-continue").replace(b"length: 0", b"length: 4")
    client.send(head)

    reply = client.reply()

    assert (reply.status, reply.body) == (200, b"no need")
    assert reply.headers["connection"] == "close"


def test_an_early_answer_is_read_though_the_upload_goes_on(client: Client) -> None:
    client.send(b"POST /ignores_body HTTP/1.1\r\nhost: t\r\ncontent-length: 90000\r\n\r\n")
    for _ in range(9):
        client.send(b"x" * 10_000)

    assert client.reply().body == b"no need"
    assert client.read_all() == b""

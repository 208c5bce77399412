"""Requests and answers of one connection."""

import json

import pytest

from tests.integration.http1.app import App
from tests.integration.http1.serving import DEADLINE_SECONDS, Client, Serve, post


def test_a_connection_serves_many_requests(client: Client) -> None:
    first, second = client.post(b"one"), client.post(b"two")

    assert (first.body, second.body) == (b"one", b"two")
    assert "connection" not in first.headers
    assert first.headers["content-length"] == "3"


def test_a_small_answer_leaves_in_one_write(client: Client) -> None:
    client.send(post(b"small"))

    segment = client.socket.recv(65536)

    assert segment.startswith(b"HTTP/1.1 200 OK\r\n")
    assert segment.endswith(b"\r\n\r\nsmall")


def test_nagle_is_off(client: Client) -> None:
    assert client.get("/nodelay").body == b"1"


def test_the_scope_is_what_stock_hypercorn_gives(serve: Serve) -> None:
    path = "/where/a%20b?x=1&y=%20"
    with Client(serve().port) as fast, Client(serve(codec="stock").port) as stock:
        ours, theirs = (one.get(path, "X-Custom: v", "accept: */*") for one in (fast, stock))

    assert json.loads(theirs.body) == json.loads(ours.body)
    assert json.loads(ours.body)["path"] == "/where/a b"


def test_an_absolute_target_is_understood(client: Client) -> None:
    reply = client.get("http://test/where/x?q=1")

    facts = json.loads(reply.body)
    assert (facts["path"], facts["query"]) == ("/where/x", "q=1")


def test_pipelined_requests_are_answered_in_order_beyond_the_bound(client: Client) -> None:
    count = 40
    client.send(b"".join(post(b"%d" % n) for n in range(count)))

    assert [client.reply().body for _ in range(count)] == [b"%d" % n for n in range(count)]


def test_pipelined_requests_wait_for_the_one_that_runs(client: Client, app: App) -> None:
    client.send(b"".join([b"GET /slow HTTP/1.1\r\nhost: t\r\n\r\n", *[post(b"x")] * 30]))
    assert app.reached.wait(DEADLINE_SECONDS)

    assert app.paths == ["/slow"]
    app.go_on.set()
    assert client.reply().body == b"done at last"
    assert [client.reply().body for _ in range(30)] == [b"x"] * 30


def test_a_streamed_answer_is_chunked(client: Client) -> None:
    reply = client.get("/stream")

    assert reply.body == b"one two three"
    assert reply.headers["transfer-encoding"] == "chunked"
    assert client.get("/").status == 200


@pytest.mark.parametrize("path", ["/where", "/stream"])
def test_head_has_the_headers_and_no_body(client: Client, path: str) -> None:
    reply = client.get(path, method="HEAD")

    assert reply.status == 200
    assert reply.body == b""
    assert client.post(b"next").body == b"next"


def test_an_answer_without_content_has_no_body_and_no_length(client: Client) -> None:
    client.send(b"GET /empty HTTP/1.1\r\nhost: t\r\n\r\n")

    head = client.read_until(b"\r\n\r\n").lower()

    assert b"content-length" not in head
    assert b"transfer-encoding" not in head
    assert client.post(b"next").body == b"next"


def test_http_1_0_is_answered_without_chunks_and_closed(client: Client) -> None:
    client.send(b"GET /stream HTTP/1.0\r\n\r\n")

    head, _, body = client.read_all().partition(b"\r\n\r\n")

    assert b"transfer-encoding" not in head.lower()
    assert body == b"one two three"


def test_http_1_0_may_ask_to_stay(client: Client) -> None:
    client.send(b"POST / HTTP/1.0\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nhi")

    reply = client.reply()

    assert reply.headers["connection"] == "keep-alive"
    assert client.post(b"again").body == b"again"


@pytest.mark.parametrize("extra", [b"", b"GET /late HTTP/1.1\r\nhost: t\r\n\r\n"])
def test_connection_close_closes_and_what_follows_is_ignored(
    client: Client, app: App, extra: bytes
) -> None:
    client.send(b"GET / HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n" + extra)

    reply = client.reply()

    assert reply.headers["connection"] == "close"
    assert client.read_all() == b""
    assert app.paths == ["/"]


def test_the_app_may_close(client: Client) -> None:
    reply = client.get("/closes")

    assert reply.headers["connection"] == "close"
    assert client.read_all() == b""

"""What the codec answers by itself, in the app's own words."""

import http.client
import json

import pytest

from services.gateway.http1.limits import Wording
from services.gateway.server import ServerOptions
from tests.integration.http1.app import App
from tests.integration.http1.serving import DEADLINE_SECONDS, Client, refusal, served


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        pytest.param(b"NONSENSE\r\n\r\n", (400, ""), id="no method"),
        pytest.param(b"GET /p HTTP/1.1\r\n\r\n", (400, "/p"), id="no host"),
        pytest.param(b"GET /p HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", (400, "/p"), id="two hosts"),
        pytest.param(b"GET /p HTTP/1.1\r\nbad name: x\r\n\r\n", (400, "/p"), id="space in name"),
        pytest.param(b"GET /p HTTP/1.1\r\nhost: a\r\n x\r\n\r\n", (400, "/p"), id="folded header"),
        pytest.param(b"GET nowhere HTTP/1.1\r\nhost: a\r\n\r\n", (400, ""), id="no target"),
        pytest.param(b"GET /p HTTP/2.0\r\nhost: a\r\n\r\n", (505, "/p"), id="version 2"),
        pytest.param(
            b"POST /p HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n"
            b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            (400, "/p"),
            id="two lengths (smuggling)",
        ),
        pytest.param(
            b"POST /p HTTP/1.1\r\nhost: a\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            (501, "/p"),
            id="unknown coding",
        ),
        pytest.param(
            b"POST /p HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n"
            b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            (400, "/p"),
            id="two codings",
        ),
        pytest.param(
            b"POST /p HTTP/1.1\r\nhost: a\r\nexpect: miracles\r\ncontent-length: 1\r\n\r\n",
            (417, "/p"),
            id="unknown expectation",
        ),
        pytest.param(
            b"POST /waits_to_read HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            (400, "/waits_to_read"),
            id="bad chunk size",
        ),
    ],
)
def test_malformed_requests_are_refused(
    client: Client, request_bytes: bytes, expected: tuple[int, str]
) -> None:
    client.send(request_bytes)

    assert refusal(client) == expected


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(b"x: " + b"y" * 10_000 + b"\r\n\r\n", id="one large"),
        pytest.param(b"".join(b"x%d: y\r\n" % n for n in range(2000)) + b"\r\n", id="many"),
        pytest.param(b"x: " + b"y" * 60_000, id="one that does not end"),
    ],
)
def test_large_headers_are_refused(client: Client, headers: bytes) -> None:
    client.send(b"GET /p HTTP/1.1\r\nhost: t\r\n" + headers)

    assert refusal(client) == (431, "/p")


def test_a_long_target_is_refused(client: Client) -> None:
    client.send(b"GET /" + b"p" * 9000 + b" HTTP/1.1\r\nhost: t\r\n\r\n")

    status, _ = refusal(client)
    assert status == 431


def test_a_large_body_is_refused_by_its_length_alone(client: Client, app: App) -> None:
    client.send(b"POST /p HTTP/1.1\r\nhost: t\r\ncontent-length: 100001\r\n\r\n")

    assert refusal(client) == (413, "/p")
    assert app.paths == []


def test_a_large_body_is_refused_before_100_continue(client: Client) -> None:
    client.send(
        b"POST /p HTTP/1.1\r\nhost: t\r\nexpect: 100-continue\r\ncontent-length: 999999\r\n\r\n"
    )

    assert refusal(client) == (413, "/p")


def test_a_large_chunked_body_is_refused_while_it_comes(client: Client) -> None:
    client.send(b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(11):
        client.send(b"2710\r\n" + b"x" * 10_000 + b"\r\n")

    assert refusal(client) == (413, "/")


def test_endless_trailers_are_refused(client: Client) -> None:
    client.send(b"POST / HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: ")
    client.send(b"y" * 60_000)

    assert refusal(client)[0] == 431


def test_a_refusal_waits_for_the_answers_before_it(client: Client, app: App) -> None:
    client.send(b"GET /slow HTTP/1.1\r\nhost: t\r\n\r\nNONSENSE\r\n\r\n")
    assert app.reached.wait(DEADLINE_SECONDS)
    app.go_on.set()

    assert client.reply().body == b"done at last"
    assert refusal(client) == (400, "")


def test_a_refused_head_request_gets_no_body(client: Client) -> None:
    client.send(b"HEAD /raises HTTP/1.1\r\nhost: t\r\n\r\n")

    reply = client.reply("HEAD")

    assert (reply.status, reply.body) == (500, b"")


def test_wording_that_would_break_the_head_leaves_a_plain_refusal(app: App, loop: str) -> None:
    def splitting(*_: object) -> Wording:
        return Wording([(b"x-request-id", b"a\r\nset-cookie: b")], b"")

    options = ServerOptions(listen="127.0.0.1:0", error_body=splitting)
    with served(app, options, loop) as server, Client(server.port) as client:
        client.send(b"NONSENSE\r\n\r\n")
        reply = client.reply()

    assert reply.status == 400
    assert "set-cookie" not in reply.headers


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"POST /p HTTP/1.1\r\nhost: t\r\nX-One: 1\r\n", id="body too large"),
        pytest.param(b"GET /p HTTP/1.1\r\nX-One: 1\r\nhost: t\r\nhost: t\r\n", id="two hosts"),
    ],
)
def test_whoever_words_a_refusal_is_told_the_headers(client: Client, head: bytes) -> None:
    client.send(head + b"content-length: 100001\r\n\r\n")

    assert json.loads(client.reply().body)["headers"]["x-one"] == "1"


def test_wording_that_fails_leaves_a_plain_refusal(app: App, loop: str) -> None:
    def broken(*_: object) -> Wording:
        raise ZeroDivisionError

    options = ServerOptions(listen="127.0.0.1:0", error_body=broken)
    with served(app, options, loop) as server, Client(server.port) as client:
        client.send(b"NONSENSE\r\n\r\n")
        reply = client.reply()

    assert reply.status == 400
    assert reply.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("path", ["/raises", "/returns", "/splits_headers"])
def test_an_app_that_does_not_answer_is_answered_for(client: Client, path: str) -> None:
    client.send(f"GET {path} HTTP/1.1\r\nhost: t\r\n\r\n".encode())

    assert refusal(client) == (500, path)


@pytest.mark.parametrize("path", ["/raises_midway", "/too_short"])
def test_an_answer_that_breaks_off_is_seen_as_cut(client: Client, path: str) -> None:
    with pytest.raises(http.client.IncompleteRead):
        client.get(path)


def test_an_answer_longer_than_declared_does_not_reach_the_next(client: Client) -> None:
    client.send(b"GET /too_long HTTP/1.1\r\nhost: t\r\n\r\n")

    assert b"more than two" not in client.read_all()

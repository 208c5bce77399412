"""How connections end: the client, the server, the clock, and garbage."""

import socket
import threading
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.gateway.http1.limits import Http1Limits
from tests.integration.http1.app import App
from tests.integration.http1.serving import DEADLINE_SECONDS, Client, Serve, Served, post, refusal


def test_a_client_that_leaves_mid_stream_is_noticed(client: Client, app: App) -> None:
    client.send(b"GET /watches HTTP/1.1\r\nhost: t\r\n\r\n")
    assert app.reached.wait(DEADLINE_SECONDS)

    client.close()

    assert app.left.wait(DEADLINE_SECONDS)


def test_a_client_that_resets_is_noticed(client: Client, app: App) -> None:
    client.send(b"GET /watches HTTP/1.1\r\nhost: t\r\n\r\n")
    assert app.reached.wait(DEADLINE_SECONDS)

    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()

    assert app.left.wait(DEADLINE_SECONDS)


def test_a_reader_who_stalls_holds_the_app_back(serve: Serve, app: App) -> None:
    with Client(serve().port, rcvbuf=16384) as client:
        client.send(b"GET /floods HTTP/1.1\r\nhost: t\r\n\r\n")
        assert app.reached.wait(DEADLINE_SECONDS)
        stalled = _settled(lambda: app.sent_bytes)
        reply = client.reply()

    assert stalled < 16 * 1024 * 1024
    assert len(reply.body) == 512 * 65536
    assert app.finished.wait(DEADLINE_SECONDS)


def _settled(read: Callable[[], int]) -> int:
    """Polls until a figure has not moved for a while."""
    pause = threading.Event()
    last, same = -1, 0
    while same < 10:
        now = read()
        same = same + 1 if now == last else 0
        last = now
        pause.wait(0.02)
    return last


def test_shutdown_lets_the_running_answer_finish(serve: Serve, app: App) -> None:
    server = serve()
    with Client(server.port) as busy, Client(server.port) as idle:
        idle.post(b"x")
        busy.send(b"GET /slow HTTP/1.1\r\nhost: t\r\n\r\n")
        assert app.reached.wait(DEADLINE_SECONDS)

        server.shut_down()

        assert idle.read_all() == b""
        app.go_on.set()
        reply = busy.reply()
        assert reply.body == b"done at last"
        assert reply.headers["connection"] == "close"
        assert busy.read_all() == b""
    server.join()


def test_shutdown_cuts_what_does_not_finish(serve: Serve, app: App) -> None:
    server = serve(drain_seconds=0.3)
    with Client(server.port) as client:
        client.send(b"GET /forever HTTP/1.1\r\nhost: t\r\n\r\n")
        assert app.reached.wait(DEADLINE_SECONDS)

        server.shut_down()

        server.join()
        assert app.left.wait(DEADLINE_SECONDS)


def test_an_idle_connection_is_closed(serve: Serve) -> None:
    with Client(serve(Http1Limits(keep_alive_seconds=0.2)).port) as client:
        client.post(b"x")

        assert client.read_all() == b""


def test_a_request_in_progress_is_not_idle(serve: Serve, app: App) -> None:
    with Client(serve(Http1Limits(keep_alive_seconds=0.05)).port) as client:
        client.send(b"GET /slow HTTP/1.1\r\nhost: t\r\n\r\n")
        assert app.reached.wait(DEADLINE_SECONDS)
        threading.Event().wait(0.3)
        app.go_on.set()

        assert client.reply().body == b"done at last"


def test_headers_that_trickle_are_refused(serve: Serve) -> None:
    with Client(serve(Http1Limits(head_seconds=0.4)).port) as client:
        client.send(b"GET /p HTTP/1.1\r\n")
        stop = threading.Event()
        trickle = threading.Thread(target=_trickle, args=(client, stop))
        trickle.start()
        try:
            assert refusal(client) == (408, "/p")
        finally:
            stop.set()
            trickle.join()


def _trickle(client: Client, stop: threading.Event) -> None:
    try:
        while not stop.wait(0.05):
            client.send(b"x-more: y\r\n")
    except OSError:
        return


def test_a_body_that_does_not_come_is_refused(serve: Serve) -> None:
    with Client(serve(Http1Limits(body_idle_seconds=0.3)).port) as client:
        client.send(b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: 9\r\n\r\nabc")

        assert refusal(client) == (408, "/")


def test_the_last_request_of_a_connection_says_so(serve: Serve) -> None:
    with Client(serve(Http1Limits(keep_alive_requests=2)).port) as client:
        assert "connection" not in client.post(b"1").headers
        assert client.post(b"2").headers["connection"] == "close"


@given(
    data=st.binary(max_size=200), prefix=st.sampled_from([b"", b"GET / HTTP/1.1\r\n", post(b"x")])
)
@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_garbage_ends_the_connection_and_not_the_server(
    garbage_server: Served, data: bytes, prefix: bytes
) -> None:
    with Client(garbage_server.port) as client:
        client.send(prefix + data)
        client.socket.shutdown(socket.SHUT_WR)
        client.read_all()

    with Client(garbage_server.port) as client:
        assert client.post(b"alive").body == b"alive"


@pytest.fixture
def garbage_server(serve: Serve) -> Served:
    return serve()

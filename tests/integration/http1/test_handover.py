"""Other protocols, handed to the stock codec."""

import contextlib
import socket
from collections.abc import Generator

import httpx
import pytest
import wsproto
import wsproto.events

from services.gateway.http1.limits import Http1Limits
from tests.integration.http1.app import App
from tests.integration.http1.serving import DEADLINE_SECONDS, Client, Serve, Served, post


@pytest.mark.parametrize("after_a_request", [False, True])
def test_websockets_are_handed_to_the_stock_codec(client: Client, after_a_request: bool) -> None:
    if after_a_request:
        client.post(b"first")
    ws = opened(client)

    assert said_back(client, ws, "hello") == ["HELLO"]


@pytest.mark.parametrize("is_early", [False, True])
def test_a_websocket_outlives_the_keep_alive_of_requests(serve: Serve, is_early: bool) -> None:
    server = serve(limits=Http1Limits(keep_alive_seconds=0.1))
    with contextlib.ExitStack() as stack:
        client, ws = stack.enter_context(connected(server, is_early=is_early))
        ws.receive_data(client.read_until(b"\r\n\r\n"))
        idle = stack.enter_context(Client(server.port))  # opened later: its time is up later
        idle.post(b"first")
        assert idle.read_all() == b""

        assert said_back(client, ws, "still there") == ["STILL THERE"]


@pytest.mark.parametrize("is_early", [False, True])
def test_a_client_that_leaves_in_its_handshake_is_let_go(serve: Serve, is_early: bool) -> None:
    with connected(serve(), is_early=is_early, leaves=True) as (client, _):
        client.read_all()  # to its end


def test_a_message_before_the_handshake_is_answered_is_refused(serve: Serve) -> None:
    server = serve()
    with connected(server, is_early=True, behind=b"\x81\x80abcd") as (client, _):
        assert client.reply().status == 400
        assert client.read_all() == b""
    server.shut_down()
    server.join()  # nothing waits for the client


@pytest.mark.parametrize(
    "changed",
    [(b"Version: 13", b"Version: 12"), (b"/socket", b"/\xe4"), (b"Protocol: a", b"Protocol: \xe4")],
)
def test_a_handshake_that_is_none_ends_its_connection(
    client: Client, changed: tuple[bytes, bytes]
) -> None:
    ws = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    asked = wsproto.events.Request(host="test", target="/socket", subprotocols=["a"])
    client.send(ws.send(asked).replace(*changed))

    assert client.reply().status == 400
    assert client.read_all() == b""


def test_connect_is_refused(client: Client) -> None:
    client.send(b"CONNECT test:1 HTTP/1.1\r\nhost: test:1\r\n\r\n")

    assert client.reply().status == 501
    assert client.read_all() == b""


def test_a_handed_over_connection_ends_at_shutdown(serve: Serve) -> None:
    server = serve()
    with Client(server.port) as client:
        client.send(b"GET / HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\n")
        assert client.reply().status == 200
        server.shut_down()
        assert client.read_all() == b""
    server.join()


def test_an_upgrade_waits_for_the_answers_before_it(client: Client, app: App) -> None:
    upgrade = b"GET / HTTP/1.1\r\nhost: t\r\nconnection: upgrade\r\nupgrade: foo\r\n\r\n"
    client.send(b"GET /slow HTTP/1.1\r\nhost: t\r\n\r\n" + upgrade + post(b"behind"))
    assert app.reached.wait(DEADLINE_SECONDS)
    app.go_on.set()

    assert client.reply().body == b"done at last"
    assert client.reply().status == 200
    assert client.reply().body == b"behind"


def test_an_upgrade_with_a_body_keeps_the_body(client: Client) -> None:
    client.send(post(b"kept", "/", "connection: upgrade", "upgrade: h2c"))

    assert client.reply().body == b"kept"


def test_h2_with_prior_knowledge_is_handed_over(serve: Serve) -> None:
    with httpx.Client(http1=False, http2=True) as h2:
        reply = h2.post(f"http://127.0.0.1:{serve().port}/", content=b"by h2")

    assert (reply.http_version, reply.content) == ("HTTP/2", b"by h2")


@contextlib.contextmanager
def connected(
    server: Served, *, is_early: bool, leaves: bool = False, behind: bytes = b""
) -> Generator[tuple[Client, wsproto.WSConnection]]:
    """A connection that has sent its handshake; early: before the server has taken it."""
    ws = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)

    def connect() -> Client:
        client = Client(server.port)
        client.send(ws.send(wsproto.events.Request(host="test", target="/socket")) + behind)
        if leaves:
            client.socket.shutdown(socket.SHUT_WR)
        return client

    with server.call(connect) if is_early else connect() as client:
        yield client, ws


def opened(client: Client) -> wsproto.WSConnection:
    ws = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    client.send(ws.send(wsproto.events.Request(host="test", target="/socket")))
    ws.receive_data(client.read_until(b"\r\n\r\n"))
    return ws


def said_back(client: Client, ws: wsproto.WSConnection, text: str) -> list[str]:
    client.send(ws.send(wsproto.events.TextMessage(data=text)))
    received: list[object] = []
    while not any(isinstance(event, wsproto.events.TextMessage) for event in received):
        data = client.socket.recv(4096)
        assert data, "the server has closed it"
        ws.receive_data(data)
        received += list(ws.events())
    return [e.data for e in received if isinstance(e, wsproto.events.TextMessage)]

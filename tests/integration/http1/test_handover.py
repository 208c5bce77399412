"""Other protocols, handed to the stock codec."""

import httpx
import pytest
import wsproto
import wsproto.events

from tests.integration.http1.app import App
from tests.integration.http1.serving import DEADLINE_SECONDS, Client, Serve, post


@pytest.mark.parametrize("after_a_request", [False, True])
def test_websockets_are_handed_to_the_stock_codec(client: Client, after_a_request: bool) -> None:
    if after_a_request:
        client.post(b"first")
    ws = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    client.send(ws.send(wsproto.events.Request(host="test", target="/socket")))
    ws.receive_data(client.read_until(b"\r\n\r\n"))
    client.send(ws.send(wsproto.events.TextMessage(data="hello")))
    received: list[object] = []
    while not any(isinstance(event, wsproto.events.TextMessage) for event in received):
        ws.receive_data(client.socket.recv(4096))
        received += list(ws.events())

    assert [e.data for e in received if isinstance(e, wsproto.events.TextMessage)] == ["HELLO"]


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

"""The codec over TLS, where the transport is another one."""

import json
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import wsproto
import wsproto.events

from services.gateway.http1.hypercorn import accepting
from services.gateway.server import HttpServer, ListenError, ServerOptions, TlsOptions
from tests.integration.http1.app import App
from tests.integration.http1.conftest import LIMITS, envelope
from tests.integration.http1.serving import DEADLINE_SECONDS, Client, Served, chunked, served

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> TlsOptions:
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *subject, *files], check=True, capture_output=True)
    return TlsOptions(certificate=str(certificate), key=str(key))


@pytest.fixture
def server(app: App, loop: str, tls: TlsOptions) -> Iterator[Served]:
    options = ServerOptions(
        listen="127.0.0.1:0", limits=LIMITS, error_body=envelope, drain_seconds=2.0, tls=tls
    )
    with served(app, options, loop) as running:
        yield running
        app.go_on.set()


@pytest.fixture
def trust(tls: TlsOptions) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=tls.certificate)


def test_requests_and_streams_over_tls(server: Served, trust: ssl.SSLContext) -> None:
    with Client(server.port, tls=trust) as client:
        client.send(chunked(b"one", b"two" * 9000))

        assert client.reply().body == b"one" + b"two" * 9000
        assert client.get("/stream").body == b"one two three"
        assert json.loads(client.get("/where").body)["scheme"] == "https"


def test_an_address_has_only_so_many_handshakes_under_way(
    server: Served, trust: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody counts its connections before that."""
    monkeypatch.setattr(accepting, "_MOST_HANDSHAKES", 3)
    where = ("127.0.0.1", server.port)
    silent = [socket.create_connection(where, DEADLINE_SECONDS) for _ in range(3)]

    with socket.create_connection(where, DEADLINE_SECONDS) as refused:
        assert refused.recv(1) == b""
    for one in silent:
        one.setblocking(False)
        with pytest.raises(BlockingIOError):
            one.recv(1)
        one.close()

    until = time.monotonic() + DEADLINE_SECONDS
    while True:  # until the server has seen that they have left
        try:
            with Client(server.port, tls=trust) as client:
                assert client.get("/echo").status == 200
            break
        except OSError:
            assert time.monotonic() < until


def test_a_client_that_leaves_a_tls_stream_is_noticed(
    server: Served, trust: ssl.SSLContext, app: App
) -> None:
    with Client(server.port, tls=trust) as client:
        client.send(b"GET /watches HTTP/1.1\r\nhost: t\r\n\r\n")
        assert app.reached.wait(DEADLINE_SECONDS)

    assert app.left.wait(DEADLINE_SECONDS)


def test_a_refusal_over_tls_is_read(server: Served, trust: ssl.SSLContext) -> None:
    with Client(server.port, tls=trust) as client:
        client.send(b"POST /p HTTP/1.1\r\nhost: t\r\ncontent-length: 999999\r\n\r\n")

        reply = client.reply()

    assert (reply.status, json.loads(reply.body)["path"]) == (413, "/p")


def test_websockets_over_tls_are_handed_over(server: Served, trust: ssl.SSLContext) -> None:
    with Client(server.port, tls=trust) as client:
        ws = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        client.send(ws.send(wsproto.events.Request(host="test", target="/socket")))

        assert b" 101 " in client.read_until(b"\r\n\r\n")


def test_alpn_chooses_h2(server: Served, trust: ssl.SSLContext) -> None:
    with httpx.Client(http2=True, verify=trust) as h2:
        reply = h2.post(f"https://127.0.0.1:{server.port}/", content=b"by h2")

    assert (reply.http_version, reply.content) == ("HTTP/2", b"by h2")


def test_a_client_ca_is_required(app: App, tls: TlsOptions, trust: ssl.SSLContext) -> None:
    strict = TlsOptions(certificate=tls.certificate, key=tls.key, client_ca=tls.certificate)
    options = ServerOptions(listen="127.0.0.1:0", tls=strict, drain_seconds=2.0)
    with served(app, options, "asyncio") as running:
        with pytest.raises((ssl.SSLError, ConnectionError)), Client(running.port, tls=trust) as c:
            c.get("/")
        trust.load_cert_chain(tls.certificate, tls.key)
        with Client(running.port, tls=trust) as known:
            assert known.get("/").status == 200


def test_a_missing_certificate_is_named(app: App, tmp_path: Path) -> None:
    missing = TlsOptions(certificate=str(tmp_path / "none.pem"), key=str(tmp_path / "none.key"))

    with pytest.raises(ListenError, match="No such file"):
        HttpServer(app, ServerOptions(listen="127.0.0.1:0", tls=missing))

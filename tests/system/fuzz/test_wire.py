"""Octets of HTTP/1.1, HTTP/2 and WebSocket connections, changed by chance, at the gateway's port."""

import re
import socket
import urllib.parse

import h2.connection
import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import Ping, TextMessage

from tests.system.fuzz.mutation import encoded, mutated_bytes, smaller
from tests.system.fuzz.search import search
from tests.system.fuzz.test_http import HI, PATIENCE_SECONDS, Client
from tests.system.fuzz.test_socket import GOOD, OPENING

PATH = "/v1/chat/completions"
BODY = encoded({"model": "alpha", "messages": HI, "max_tokens": 3})
HOST = b"host: localhost\r\n"
JSON = HOST + b"content-type: application/json\r\n"
ODD = (
    *(b"\r\n", b"\r", b"\n", b"\0", b": ", b"\r\n\r\n", b"\xff\xfe", b" ", b"0\r\n\r\n"),
    *(b"transfer-encoding: chunked\r\n", b"content-length: 5\r\n", b"content-length: -1\r\n"),
    *(b"expect: 100-continue\r\n", b"upgrade: h2c\r\nconnection: upgrade\r\n", b"HTTP/1.0"),
    *(b"connection: close\r\n", b"host: a\r\n", b"x" * 70_000, b"a: b\r\n" * 300),
)


def http1():
    """Requests as they are written."""
    post = f"POST {PATH} HTTP/1.1\r\n".encode() + JSON
    counted = post + b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)
    chunks = b"5\r\n%b\r\n%x\r\n%b\r\n0\r\nx: y\r\n\r\n" % (BODY[:5], len(BODY) - 5, BODY[5:])
    get = b"GET /v1/models?a=%20&b HTTP/1.1\r\n" + HOST + b"\r\n"
    yield from (counted, get * 3, counted + get, get.replace(b"HTTP/1.1", b"HTTP/1.0"))
    yield post + b"transfer-encoding: chunked\r\n\r\n" + chunks
    yield post + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)
    yield b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n"
    yield b"CONNECT localhost:1 HTTP/1.1\r\n" + HOST + b"\r\n"


def websocket():
    """A handshake with what follows it."""
    protocol = Connection(ConnectionType.CLIENT)
    turn = protocol.send(TextMessage(encoded(GOOD).decode()))
    pieces = protocol.send(TextMessage("{", message_finished=False))
    pieces += protocol.send(Ping(b"p")) + protocol.send(TextMessage("}"))
    deflate = b"\r\nsec-websocket-extensions: permessage-deflate\r\n\r\n"
    yield from (OPENING + turn, OPENING + pieces, OPENING)
    yield OPENING.replace(b"\r\n\r\n", deflate) + turn


def http2():
    """Frames of a client that knows that the server speaks it."""
    for bodies in ([BODY], [BODY[:9], BODY[9:]], []):
        connection = h2.connection.H2Connection()
        connection.initiate_connection()
        for stream in (1, 3):
            method = ":method", "POST" if bodies else "GET"
            names = (method, (":path", PATH), (":scheme", "http"), (":authority", "localhost"))
            connection.send_headers(stream, names, end_stream=not bodies)
            for body in bodies:
                connection.send_data(stream, body, end_stream=body is bodies[-1])
        connection.ping(b"12345678")
        connection.reset_stream(3)
        yield connection.data_to_send()


SEEDS = [*http1(), *websocket(), *http2()]


def make(random):
    """What one connection sends, in pieces."""
    data = random.choice(SEEDS)
    for _ in range(random.choice((1, 1, 2, 3))):
        if random.random() < 0.5:
            data = mutated_bytes(random, data)
        start, end = sorted(random.choices(range(min(len(data), 600) + 1), k=2))
        data = data[:start] + random.choice((*ODD, b"", data[start:end])) + data[end:]
    at = random.randrange(len(data) + 1)
    return random.choice(([data], [data[:at], data[at:]]))


@pytest.fixture
def client(fleet, watch):
    where = urllib.parse.urlsplit(fleet.url)
    sent = 0

    def problem(made):
        nonlocal sent
        sent += 1
        if sent == 200:
            watch.settle()
        told = b""
        try:
            with socket.create_connection((where.hostname, where.port)) as connection:
                connection.settimeout(PATIENCE_SECONDS)
                for piece in made:
                    connection.sendall(piece)
                connection.shutdown(socket.SHUT_WR)
                while data := connection.recv(65536):
                    told += data
        except TimeoutError:
            return f"still open, and silent: {told[-200:]!r} {watch.traceback()}"
        except OSError:
            pass  # what is cut off while it sends, or reads no more
        if re.search(rb"HTTP/1.1 500 ", told):
            return f"{told[-300:]!r} {watch.traceback()}"
        return watch.traceback()

    return problem


def test_no_octets_break_the_server(fleet, client, watch):
    search(make, client, smaller)

    watch.check_memory()
    good = ("POST", PATH, {"model": "alpha", "messages": HI})
    assert Client(fleet.url, watch).problem(good) == ""

"""Messages changed by chance at the WebSocket end of Responses."""

import json
import socket
import urllib.parse

import pytest
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, TextMessage
from wsproto.utilities import RemoteProtocolError

from tests.system.fuzz.mutation import encoded, mutated, mutated_bytes, smaller
from tests.system.fuzz.search import search
from tests.system.fuzz.test_http import BODIES, PATIENCE_SECONDS, SEEDS

TURNS = [
    {"type": "response.create", **body, **lane}
    for path, body in SEEDS
    if path == "/v1/responses"
    for lane in ({}, {"stream_id": "a"})
]
GOOD = {"type": "response.create", "model": "alpha", "input": "hi"}
OPENING = (
    b"GET /v1/responses HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\n"
    b"connection: upgrade\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
ENDS = {"response.completed", "response.incomplete", "response.failed", "error"}


def make(random):
    """Messages of one connection: (is text, the pieces that it is sent in)."""
    return [_message(random) for _ in range(random.choice((1, 1, 2, 4)))]


def _message(random):
    data = encoded(mutated(random, random.choice(TURNS), [*BODIES, *TURNS]))
    if random.random() < 0.1:
        data = mutated_bytes(random, data)
    is_text = random.random() < 0.8
    if is_text:
        data = data.decode(errors="replace")
    at = random.randrange(len(data) + 1) if random.random() < 0.3 else len(data)
    return is_text, [data[:at], data[at:]] if at < len(data) else [data]


class Client:
    """Sends the messages of one connection, and says what is wrong with what comes back."""

    def __init__(self, url, watch):
        self._where = urllib.parse.urlsplit(url)
        self._watch = watch
        self._sent = 0

    def problem(self, made):
        self._sent += 1
        if self._sent == 200:
            self._watch.settle()
        try:
            told = self.ask(made)
        except (TimeoutError, OSError, RemoteProtocolError) as error:
            return f"{type(error).__name__}: {error} {self._watch.traceback()}"
        for event in told:
            failure = event.get("error") or (event.get("response") or {}).get("error") or {}
            if event.get("status") == 500 or failure.get("code") == "internal_error":
                return f"{event} {self._watch.traceback()}"
        return self._watch.traceback()

    def ask(self, messages):
        """All events, up to the one that ends the last turn."""
        protocol = Connection(ConnectionType.CLIENT)
        address = (self._where.hostname, self._where.port)
        with socket.create_connection(address, timeout=PATIENCE_SECONDS) as connection:
            connection.sendall(OPENING)
            head = b""
            while b"\r\n\r\n" not in head:
                data = connection.recv(65536)
                if not data:
                    raise OSError(f"closed after {head!r}")
                head += data
            head, _, rest = head.partition(b"\r\n\r\n")
            if b" 101 " not in head:
                raise OSError(f"answered {head!r}")
            for is_text, pieces in messages:
                kind = TextMessage if is_text else BytesMessage
                for count, piece in enumerate(pieces, 1):
                    is_last = count == len(pieces)
                    connection.sendall(protocol.send(kind(piece, message_finished=is_last)))
            protocol.receive_data(rest)
            return _events(connection, protocol, len(messages))


def _events(connection, protocol, turns):
    told, text = [], ""
    while True:
        for event in protocol.events():
            if not isinstance(event, TextMessage):
                raise OSError(f"instead of an answer came {event}")
            text += event.data
            if event.message_finished:
                told.append(json.loads(text))
                text = ""
                turns -= told[-1]["type"] in ENDS
        if turns <= 0:
            return told
        protocol.receive_data(connection.recv(65536) or None)


@pytest.fixture
def client(fleet, watch):
    return Client(fleet.url, watch)


def test_no_message_breaks_a_turn_or_its_connection(client, watch):
    search(make, client.problem, smaller)

    watch.check_memory()
    told = client.ask([(True, [json.dumps(GOOD)])])
    assert told[-1]["type"] == "response.completed"

"""HTTP/2 connections that many requests share."""

import socket
from collections.abc import Iterator
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from h2.settings import SettingCodes

from services.gateway.http1.limits import Http1Limits
from tests.integration.http1.app import App
from tests.integration.http1.serving import DEADLINE_SECONDS, Client, Serve

FIELDS = {":method": "POST", ":path": "/", ":scheme": "http", ":authority": "test"}


class H2Client:
    """A client's end of one connection."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.frames = h2.connection.H2Connection(
            h2.config.H2Configuration(header_encoding="utf-8", normalize_outbound_headers=False)
        )
        self.frames.config.validate_outbound_headers = False
        self.frames.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.client.send(self.frames.data_to_send())

    def ask(self, stream: int, path: str = "/", *, is_whole: bool = True) -> None:
        self.send(stream, FIELDS | {":path": path}, is_whole=is_whole)

    def send(self, stream: int, fields: dict[str, str], *, is_whole: bool = True) -> None:
        self.frames.send_headers(stream, list(fields.items()), end_stream=is_whole)
        self.flush()

    def until(self, kind: type[Any], stream: int) -> Any:
        """The event of a stream; fails where the connection ends before."""
        while True:
            data = self.client.socket.recv(65536)
            assert data, "the connection has ended"
            event: Any
            for event in self.frames.receive_data(data):
                if isinstance(event, kind) and event.stream_id == stream:
                    return event


@pytest.fixture
def client(serve: Serve) -> Iterator[H2Client]:
    with Client(serve().port) as one:
        yield H2Client(one)


def finish(client: H2Client, app: App, stream: int) -> None:
    """Lets the answer to `/slow` end, which has begun before what was sent meanwhile."""
    app.go_on.set()
    client.until(h2.events.StreamEnded, stream)


def test_the_rest_of_an_answered_body_is_no_fault(client: H2Client, app: App) -> None:
    client.ask(1, "/slow")
    assert app.reached.wait(DEADLINE_SECONDS)
    client.ask(3, "/ignores_body", is_whole=False)
    client.until(h2.events.StreamEnded, 3)
    for _ in range(10):  # more than the window of the connection in all
        client.frames.send_data(3, b"x" * 10_000)
        client.flush()
        if client.frames.local_flow_control_window(3) < 10_000:
            client.until(h2.events.WindowUpdated, 0)

    finish(client, app, 1)


@pytest.mark.parametrize("path", ["/where", "/ignores_body"])
def test_a_body_that_nobody_reads_holds_up_no_other_request(client: H2Client, path: str) -> None:
    client.ask(1, path, is_whole=False)
    for _ in range(100):
        client.frames.send_data(1, b"x")
    client.flush()
    client.until(h2.events.StreamEnded, 1)

    client.ask(3, "/where")
    client.until(h2.events.StreamEnded, 3)
    client.client.socket.shutdown(socket.SHUT_WR)

    while client.client.socket.recv(65536):
        pass


@pytest.mark.parametrize(
    "fields",
    [
        FIELDS | {":path": "/\u00fc"},
        FIELDS | {":method": "P\u00d6ST"},
        {":method": "CONNECT", ":authority": "test"},
    ],
)
def test_a_request_that_cannot_be_read_ends_itself_alone(
    client: H2Client, app: App, fields: dict[str, str]
) -> None:
    client.ask(1, "/slow")
    assert app.reached.wait(DEADLINE_SECONDS)
    client.send(3, fields)

    finish(client, app, 1)


def test_priorities_are_left_alone(client: H2Client, app: App) -> None:
    client.ask(1, "/slow")
    assert app.reached.wait(DEADLINE_SECONDS)
    for stream in range(3, 4003, 2):  # more than Hypercorn can count
        client.frames.prioritize(stream, depends_on=stream - 2)
    client.frames.prioritize(3, depends_on=5, exclusive=True)
    client.frames.prioritize(5, depends_on=3)
    client.flush()

    finish(client, app, 1)


def test_a_connection_is_idle_once_its_last_request_is_reset(serve: Serve, app: App) -> None:

    with Client(serve(limits=Http1Limits(keep_alive_seconds=0.1)).port) as one:
        client = H2Client(one)
        client.ask(1, "/watches")
        assert app.reached.wait(DEADLINE_SECONDS)
        client.frames.reset_stream(1)
        client.flush()

        one.read_all()  # to its end


def test_a_client_that_leaves_unread_what_it_asked_for_is_let_go(client: H2Client) -> None:
    client.frames.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
    client.ask(1, "/stream")
    client.until(h2.events.ResponseReceived, 1)
    client.client.socket.shutdown(socket.SHUT_WR)

    client.client.read_all()  # to its end


def test_a_connection_on_which_nothing_runs_ends_with_its_client(client: H2Client) -> None:
    client.ask(1)
    client.until(h2.events.StreamEnded, 1)
    client.client.socket.shutdown(socket.SHUT_WR)

    client.client.read_all()  # to its end

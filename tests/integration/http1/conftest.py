"""A served app per test, on both event loops."""

import json
from collections.abc import Iterator

import pytest

from services.gateway.http1.limits import Http1Limits, Unanswered, Wording
from services.gateway.server import Http1Codec, ServerOptions
from tests.integration.http1.app import App
from tests.integration.http1.serving import LOOPS, Client, Serve, Served

LIMITS = Http1Limits(
    head_bytes=8192,
    body_bytes=100_000,
    pipelined_requests=4,
    linger_seconds=5.0,
)


def envelope(status: int, reason: str, asked: Unanswered) -> Wording:
    said = {"status": status, "reason": reason, "path": asked.path, "headers": {**asked.headers}}
    return Wording([(b"content-type", b"application/json")], json.dumps(said).encode())


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture(params=sorted(LOOPS))
def loop(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def serve(app: App, loop: str) -> Iterator[Serve]:
    """Starts the app with given limits."""
    with Servers(app, loop) as start:
        yield start


class Servers:
    def __init__(self, app: App, loop: str) -> None:
        self._app = app
        self._loop = loop
        self._servers: list[Served] = []

    def __enter__(self) -> Serve:
        return self._start

    def __exit__(self, *_: object) -> None:
        self._app.go_on.set()
        for server in self._servers:
            server.shut_down()
            server.join()

    def _start(
        self,
        limits: Http1Limits = LIMITS,
        codec: Http1Codec = "fast",
        drain_seconds: float = 5.0,
    ) -> Served:
        options = ServerOptions(
            listen="127.0.0.1:0",
            http1_codec=codec,
            limits=limits,
            error_body=envelope,
            drain_seconds=drain_seconds,
        )
        server = Served(self._app, options, self._loop)
        self._servers.append(server)
        return server


@pytest.fixture
def client(serve: Serve) -> Iterator[Client]:
    with Client(serve().port) as one:
        yield one

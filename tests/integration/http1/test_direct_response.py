"""One contract, two implementations: the codec's own exchange, and the pump over ASGI.

The endpoint only opens the response; the test writes from callbacks on the server's loop,
as a neuron's session does.
"""

import asyncio
import http.client
import threading
from collections.abc import Iterator

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from services.gateway.http1.direct import DirectResponse
from services.gateway.http1.exchange import Exchange
from services.gateway.http1.pumped import PumpedResponse, direct_response
from services.gateway.server import Http1Codec, ServerOptions
from tests.integration.http1.serving import DEADLINE_SECONDS, Client, Served, served

EVENT_STREAM = [(b"content-type", b"text/event-stream")]
MIB = 1024 * 1024


class Endpoint:
    """Opens a response, shows it to the test, and waits for `end`."""

    def __init__(self) -> None:
        self.opened = threading.Semaphore(0)
        self.left = threading.Event()
        self.drained = threading.Event()
        self.returned = threading.Semaphore(0)
        self.closes = 0
        self.response: DirectResponse
        self.end: asyncio.Event

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        while (await receive()).get("more_body", False):
            pass
        self.response = direct_response(scope, receive, send)
        self.end = asyncio.Event()
        self.response.on_close(self._on_close)
        self.response.on_drain(self.drained.set)
        self.opened.release()
        try:
            await self.end.wait()
        finally:
            await self.response.aclose()
            self.returned.release()

    def _on_close(self) -> None:
        self.closes += 1
        self.left.set()


@pytest.fixture
def endpoint() -> Endpoint:
    return Endpoint()


@pytest.fixture(
    params=[("fast", "asyncio"), ("fast", "uvloop"), ("stock", "asyncio"), ("stock", "uvloop")],
    ids="-".join,
)
def kind(request: pytest.FixtureRequest) -> tuple[Http1Codec, str]:
    codec, loop = request.param
    return codec, loop


@pytest.fixture
def server(endpoint: Endpoint, kind: tuple[Http1Codec, str]) -> Iterator[Served]:
    codec, loop = kind
    options = ServerOptions(listen="127.0.0.1:0", http1_codec=codec, drain_seconds=2.0)
    with served(endpoint, options, loop) as running:
        yield running


class Talk:
    """A request whose endpoint is waiting, and the test's hold on it."""

    def __init__(self, server: Served, endpoint: Endpoint, client: Client) -> None:
        self.server = server
        self.endpoint = endpoint
        self.client = client

    def ask(self, method: str = "GET") -> None:
        self.client.send(f"{method} / HTTP/1.1\r\nhost: t\r\n\r\n".encode())
        assert self.endpoint.opened.acquire(timeout=DEADLINE_SECONDS)

    def start(self, *headers: tuple[bytes, bytes]) -> None:
        self.server.call(lambda: self.endpoint.response.start(200, [*EVENT_STREAM, *headers]))

    def write(self, data: bytes) -> None:
        self.server.call(lambda: self.endpoint.response.write(data))

    def finish(self, tail: bytes = b"") -> None:
        self.server.call(lambda: self.endpoint.response.finish(tail))

    def end(self) -> None:
        self.server.call(self.endpoint.end.set)
        assert self.endpoint.returned.acquire(timeout=DEADLINE_SECONDS)

    def closed(self) -> bool:
        return bool(self.server.call(lambda: self.endpoint.response.closed))

    def buffered(self) -> int:
        return int(self.server.call(self.endpoint.response.buffered))


@pytest.fixture
def talk(server: Served, endpoint: Endpoint) -> Iterator[Talk]:
    with Client(server.port, rcvbuf=32768) as client:
        one = Talk(server, endpoint, client)
        one.ask()
        yield one
        if hasattr(endpoint, "end"):
            server.call(endpoint.end.set)


def test_the_server_decides_the_implementation(talk: Talk, kind: tuple[Http1Codec, str]) -> None:
    expected = Exchange if kind[0] == "fast" else PumpedResponse

    assert isinstance(talk.endpoint.response, expected)
    assert isinstance(talk.endpoint.response, DirectResponse)


def test_pieces_arrive_in_order(talk: Talk) -> None:
    talk.start()
    for number in range(50):
        talk.write(b"data: %d\n\n" % number)
    talk.finish(b"data: [DONE]\n\n")
    reply = talk.client.reply()

    expected = b"".join(b"data: %d\n\n" % n for n in range(50)) + b"data: [DONE]\n\n"
    assert (reply.status, reply.body) == (200, expected)
    assert reply.headers["content-type"] == "text/event-stream"
    assert talk.closed()


def test_a_piece_reaches_the_client_before_the_next_is_written(talk: Talk) -> None:
    talk.start()
    for number in range(3):
        piece = b"data: %d\n\n" % number
        talk.write(piece)

        assert talk.client.read_until(piece)


def test_an_empty_first_piece_sends_the_head(talk: Talk) -> None:
    talk.start()
    talk.write(b"")

    assert b" 200 " in talk.client.read_until(b"\r\n\r\n")


def test_an_answer_finished_in_one_go_has_a_length(talk: Talk) -> None:
    talk.start()
    talk.finish(b"all of it")

    reply = talk.client.reply()

    assert reply.body == b"all of it"
    assert reply.headers["content-length"] == "9"


def test_a_declared_length_is_kept(talk: Talk) -> None:
    talk.start((b"content-length", b"4"))
    talk.write(b"ab")
    talk.finish(b"cd")

    reply = talk.client.reply()

    assert (reply.headers["content-length"], reply.body) == ("4", b"abcd")


def test_the_connection_goes_on_to_the_next_request(talk: Talk) -> None:
    talk.start()
    talk.finish(b"first")
    assert talk.client.reply().body == b"first"
    talk.end()

    talk.ask()
    talk.start()
    talk.finish(b"second")

    assert talk.client.reply().body == b"second"


def test_head_requests_get_no_body(server: Served, endpoint: Endpoint) -> None:
    with Client(server.port) as client:
        talk = Talk(server, endpoint, client)
        talk.ask("HEAD")
        talk.start()
        talk.write(b"unseen")
        talk.finish(b"unseen")
        assert client.reply("HEAD").body == b""
        talk.end()

        talk.ask()
        talk.start()
        talk.finish(b"seen")
        assert client.reply().body == b"seen"


def test_starting_twice_and_bad_headers_are_the_callers_errors(talk: Talk) -> None:
    with pytest.raises(ValueError, match="line break"):
        talk.start((b"x", b"1\r\nset-cookie: stolen"))
    talk.start()
    with pytest.raises(RuntimeError, match="before"):
        talk.start()


def test_what_is_written_out_of_turn_is_dropped(talk: Talk) -> None:
    talk.write(b"too early")
    talk.finish(b"too early")
    talk.start()
    talk.finish(b"whole")
    talk.write(b"too late")
    talk.finish(b"too late")

    assert talk.client.reply().body == b"whole"
    assert talk.buffered() == 0


def test_a_client_that_leaves_is_told_of_once(talk: Talk, endpoint: Endpoint) -> None:
    talk.start()
    talk.write(b"first")
    talk.client.read_until(b"first")

    talk.client.close()

    assert endpoint.left.wait(DEADLINE_SECONDS)
    assert talk.closed()
    for _ in range(20):
        talk.write(b"nobody reads this" * 1000)
    talk.finish(b"nor this")
    talk.end()
    assert endpoint.closes == 1
    assert talk.buffered() == 0


def test_a_late_listener_learns_that_the_client_has_left(talk: Talk, endpoint: Endpoint) -> None:
    talk.start()
    talk.write(b"first")
    talk.client.read_until(b"first")
    talk.client.close()
    assert endpoint.left.wait(DEADLINE_SECONDS)
    told = threading.Event()

    talk.server.call(lambda: endpoint.response.on_close(told.set))

    assert told.wait(DEADLINE_SECONDS)


def test_a_client_that_leaves_behind_the_end_is_no_news(talk: Talk, endpoint: Endpoint) -> None:
    talk.start()
    talk.finish(b"whole")
    talk.client.reply()

    talk.client.close()
    talk.end()

    assert not endpoint.left.is_set()


def test_a_callback_that_raises_harms_nobody(talk: Talk, endpoint: Endpoint) -> None:
    def broken() -> None:
        endpoint.left.set()
        raise ZeroDivisionError

    talk.server.call(lambda: endpoint.response.on_close(broken))
    talk.start()
    talk.write(b"x")
    talk.client.close()

    assert endpoint.left.wait(DEADLINE_SECONDS)
    with Client(talk.server.port) as client:
        again = Talk(talk.server, endpoint, client)
        talk.end()
        again.ask()
        again.start()
        again.finish(b"alive")
        assert client.reply().body == b"alive"


def test_a_stalled_reader_shows_in_the_buffer_and_its_return_is_told(
    talk: Talk, endpoint: Endpoint
) -> None:
    talk.start()
    piece, count = b"~" * 32768, 0
    while talk.buffered() < MIB:
        talk.write(piece)
        count += 1
        assert count < 4096
    assert not endpoint.drained.is_set()

    received = bytearray()
    reader = threading.Thread(target=_read_to_the_end, args=(talk.client, received))
    reader.start()
    assert endpoint.drained.wait(DEADLINE_SECONDS)
    talk.finish()
    reader.join()

    assert received.count(b"~") == count * len(piece)


def _read_to_the_end(client: Client, received: bytearray) -> None:
    while not received.endswith(b"0\r\n\r\n"):
        received += client.socket.recv(65536)


def test_a_reader_who_never_comes_back_is_cut(talk: Talk, endpoint: Endpoint) -> None:
    talk.start()
    written = 0
    while not talk.closed():
        talk.write(b"x" * MIB)
        written += 1
        assert written < 64

    assert endpoint.left.wait(DEADLINE_SECONDS)
    talk.end()
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        talk.client.reply()


@pytest.mark.parametrize("how", ["abort", "return"])
def test_an_answer_without_its_end_is_seen_as_cut(talk: Talk, endpoint: Endpoint, how: str) -> None:
    talk.start()
    talk.write(b"half")
    talk.client.read_until(b"half")

    if how == "abort":
        talk.server.call(endpoint.response.abort)
        assert talk.closed()
    talk.end()

    assert not talk.client.read_all().endswith(b"0\r\n\r\n")
    assert endpoint.closes == 0


def test_h2_clients_are_served_by_the_pump(endpoint: Endpoint) -> None:
    options = ServerOptions(listen="127.0.0.1:0", drain_seconds=2.0)
    with served(endpoint, options, "uvloop") as server:
        said = threading.Thread(target=_speak, args=(server, endpoint))
        said.start()
        with httpx.Client(http1=False, http2=True, timeout=DEADLINE_SECONDS) as h2:
            reply = h2.get(f"http://127.0.0.1:{server.port}/")
        said.join()

    assert (reply.http_version, reply.text) == ("HTTP/2", "one two three")
    assert isinstance(endpoint.response, PumpedResponse)


def _speak(server: Served, endpoint: Endpoint) -> None:
    assert endpoint.opened.acquire(timeout=DEADLINE_SECONDS)
    server.call(lambda: endpoint.response.start(200, EVENT_STREAM))
    server.call(lambda: endpoint.response.write(b"one "))
    server.call(lambda: endpoint.response.write(b"two "))
    server.call(lambda: endpoint.response.finish(b"three"))
    server.call(endpoint.end.set)


def test_an_h2_client_that_leaves_is_noticed(endpoint: Endpoint) -> None:
    options = ServerOptions(listen="127.0.0.1:0", drain_seconds=2.0)
    with served(endpoint, options, "uvloop") as server:
        said = threading.Thread(target=_open_only, args=(server, endpoint))
        said.start()
        with (
            httpx.Client(http1=False, http2=True, timeout=DEADLINE_SECONDS) as h2,
            h2.stream("GET", f"http://127.0.0.1:{server.port}/") as reply,
        ):
            assert next(reply.iter_bytes()) == b"one "
        said.join()

        assert endpoint.left.wait(DEADLINE_SECONDS)
        server.call(endpoint.end.set)


def _open_only(server: Served, endpoint: Endpoint) -> None:
    assert endpoint.opened.acquire(timeout=DEADLINE_SECONDS)
    server.call(lambda: endpoint.response.start(200, EVENT_STREAM))
    server.call(lambda: endpoint.response.write(b"one "))

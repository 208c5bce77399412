from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.http1.limits import Http1Limits, Refused
from services.gateway.http1.reader import RequestHead, RequestReader, Upgrade

STREAM = (
    b"GET /a?b=c HTTP/1.1\r\nHost: one\r\nX-Empty:\r\n\r\n"
    b"POST /b HTTP/1.1\r\nhost: two\r\ncontent-length: 5\r\n\r\nhello"
    b"POST /c HTTP/1.1\r\nhost: three\r\ntransfer-encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nx-trailer: t\r\n\r\n"
    b"GET /d HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"
)


class Recorder:
    """Keeps what the reader says; bodies joined, since pieces depend on the chunking."""

    def __init__(self) -> None:
        self.requests: list[list[object]] = []

    def request_begun(self, head: RequestHead) -> None:
        self.requests.append([head, b"", False])

    def body_received(self, data: bytes) -> None:
        last = self.requests[-1]
        last[1] = bytes(last[1]) + data  # type: ignore[call-overload]

    def request_ended(self) -> None:
        self.requests[-1][2] = True


def read(portions: Iterable[bytes], limits: Http1Limits | None = None) -> list[list[object]]:
    recorder = Recorder()
    reader = RequestReader(recorder, limits or Http1Limits())
    for portion in portions:
        reader.feed(portion)
    return recorder.requests


@given(cuts=st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_any_chunking_gives_the_same_requests(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    portions = [STREAM[a:b] for a, b in pairwise(edges) if a != b]

    assert read([STREAM]) == read(portions)


def test_requests_are_told_with_their_bodies() -> None:
    requests = read([STREAM])

    heads = [request[0] for request in requests]
    assert [b"", b"hello", b"abcde", b""] == [request[1] for request in requests]
    assert all(request[2] for request in requests)
    assert heads[0] == RequestHead(
        "GET", b"/a?b=c", "1.1", [(b"host", b"one"), (b"x-empty", b"")], True, False
    )


@given(data=st.binary(max_size=300))
def test_garbage_is_refused_or_waited_for_and_nothing_else(data: bytes) -> None:
    try:
        read([data])
    except (Refused, Upgrade):
        return


def test_the_first_header_over_the_limit_is_refused_without_its_end() -> None:
    head = b"GET / HTTP/1.1\r\nhost: a\r\nx: "

    with pytest.raises(Refused) as refused:
        read([head, *[b"y" * 100] * 12], Http1Limits(head_bytes=1000))

    assert refused.value.status == 431


def test_one_byte_chunks_within_the_limit_are_read() -> None:
    head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"

    requests = read([head, *[b"1\r\nx\r\n"] * 5000, b"0\r\n\r\n"], Http1Limits(head_bytes=1000))

    assert requests[0][1] == b"x" * 5000


@pytest.mark.parametrize("framing", [b"content-length: 11\r\n\r\n", None])
def test_a_body_over_the_limit_is_refused(framing: bytes | None) -> None:
    head = b"POST / HTTP/1.1\r\nhost: a\r\n"
    portions = (
        [head + framing]
        if framing
        else [head + b"transfer-encoding: chunked\r\n\r\n", b"6\r\nabcdef\r\n", b"6\r\nabcdef\r\n"]
    )

    with pytest.raises(Refused) as refused:
        read(portions, Http1Limits(body_bytes=10))

    assert refused.value.status == 413


def test_an_upgrade_gives_the_head_back_and_says_where_it_ended() -> None:
    head = b"GET /ws HTTP/1.1\r\nhost: a\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"

    with pytest.raises(Upgrade) as upgrade:
        read([head + b"frames"])

    assert upgrade.value.head == head
    assert upgrade.value.consumed == len(head)


def test_bytes_behind_the_last_request_are_dropped() -> None:
    last = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"

    assert len(read([last + b"whatever", b"more"])) == 1


@pytest.mark.parametrize("wish", [b"h2c", b"H2C", b"foo"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_wish_for_another_protocol_than_websocket_is_passed_over(wish: bytes, size: int) -> None:
    stream = (
        b"POST /a HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings\r\n"
        b"upgrade: %b\r\nhttp2-settings: AAMAAABk\r\ncontent-length: 4\r\n\r\nkept"
        b"GET /b HTTP/1.1\r\nhost: b\r\n\r\n" % wish
    )

    first, second = read([stream[at : at + size] for at in range(0, len(stream), size)])

    assert first[1:] == [b"kept", True]
    assert isinstance(first[0], RequestHead)
    assert first[0].headers == [(b"host", b"a"), (b"content-length", b"4")]
    assert first[0].keep_alive
    assert isinstance(second[0], RequestHead)
    assert second[0].target == b"/b"


@pytest.mark.parametrize("protocol", [b"RTSP/1.0", b"RTSP/1.1", b"ICE/1.0"])
@pytest.mark.parametrize("size", [1, 1000])
def test_another_protocol_in_the_request_line_is_refused(protocol: bytes, size: int) -> None:
    method = b"SOURCE" if protocol.startswith(b"ICE") else b"POST"
    stream = b"%b /a %b\r\nhost: a\r\ncontent-length: 0\r\n\r\n" % (method, protocol)

    with pytest.raises(Refused) as refused:
        read([stream[at : at + size] for at in range(0, len(stream), size)])

    assert refused.value.status == 400


def test_text_about_another_protocol_is_no_other_protocol() -> None:
    body = b"POST /a RTSP/1.0\r\n"
    stream = b"POST /a HTTP/1.1\r\nhost: a\r\nuser-agent: x RTSP/1.0\r\ncontent-length: %d\r\n\r\n"

    assert len(read([stream % len(body) + body])) == 1


def test_http_1_0_with_a_transfer_coding_ends_its_connection() -> None:
    head = b"POST / HTTP/1.0\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n"

    ((found, body, ended),) = read([head + b"2\r\nhi\r\n0\r\n\r\n"])

    assert (body, ended) == (b"hi", True)
    assert isinstance(found, RequestHead)
    assert not found.keep_alive

"""Bounds of one HTTP/1.1 connection, and how a refusal is worded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import NamedTuple, TypeAlias


class Unanswered(NamedTuple):
    """What was read of a request before it was refused; empty where nothing was."""

    method: str = ""
    path: str = ""
    headers: Mapping[str, str] = MappingProxyType({})


class Wording(NamedTuple):
    """Headers and body of a refusal, without the headers for framing."""

    headers: Sequence[tuple[bytes, bytes]]
    body: bytes


# Words a refusal: takes its status, the reason, and what was read of the request.
ErrorBody: TypeAlias = Callable[[int, str, Unanswered], Wording]

# Body bytes that may wait for the app before the socket is no longer read, and octets that are
# parsed in one go, so that one large read cannot run far ahead of any limit.
BODY_HIGH_WATER_BYTES = 64 * 1024
SLICE_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Http1Limits:
    """Bounds of one HTTP/1.1 connection. Every wait and every buffer has one here.

    Attributes:
        head_bytes: request line and headers together; above it 431. Trailers share it.
        body_bytes: one request's body; above it 413, before the rest is read.
        head_seconds: from a request's first byte to the end of its headers; then 408.
        body_idle_seconds: between two reads of a body that the app waits for; then 408.
        keep_alive_seconds: an idle connection is closed after this long.
        keep_alive_requests: requests of one connection; the last answer says `close`.
        pipelined_requests: parsed ahead of the one being answered; then reading stops.
        buffered_bytes: an answer that nobody reads; above it the connection is cut.
        linger_seconds: a refused client may go on sending this long, so that it reads why.
        flush_seconds: a closing connection may take this long to accept what is left.
    """

    head_bytes: int = 64 * 1024
    body_bytes: int = 64 * 1024 * 1024
    head_seconds: float = 20.0
    body_idle_seconds: float = 60.0
    keep_alive_seconds: float = 75.0
    keep_alive_requests: int = 1_000_000
    pipelined_requests: int = 16
    buffered_bytes: int = 4 * 1024 * 1024
    linger_seconds: float = 2.0
    flush_seconds: float = 30.0


def plain_error(status: int, reason: str, asked: Unanswered) -> Wording:
    """Words a refusal as plain text, for servers that have no envelope of their own."""
    del asked
    phrase = HTTPStatus(status).phrase
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    return Wording(headers, f"{status} {phrase}: {reason}\n".encode())


class Refused(Exception):  # noqa: N818 - a verdict on the client, not an error of ours
    """A request that is answered by the codec itself, after which the connection closes."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason

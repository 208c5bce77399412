"""Bytes to requests: httptools, and the checks that it leaves to the server."""

from dataclasses import dataclass, replace
from typing import Protocol

import httptools

from services.gateway.http1.limits import Http1Limits, Refused, Unanswered

_OVERHEAD_PER_BODY_BYTE = 8
# What the parser takes besides: RTSP (RFC 2326) and Icecast's protocol.
_OTHER_PROTOCOLS = (b"RTSP/", b"ICE/")
_UPGRADING = frozenset({b"upgrade", b"http2-settings"})
_SPECIAL = frozenset({b"content-length", b"expect", b"transfer-encoding"})


@dataclass(slots=True)
class RequestHead:
    """Request line and headers.

    Attributes:
        target: as it stood on the wire, ASCII.
        headers: lower-case names, in order.
        keep_alive: the client lets the connection go on behind this request.
        expects_continue: it waits for `100 Continue` before it sends the body.
    """

    method: str
    target: bytes
    http_version: str
    headers: list[tuple[bytes, bytes]]
    keep_alive: bool
    expects_continue: bool


class RequestSink(Protocol):
    """Takes the requests of one connection. May raise `Refused`."""

    __slots__ = ()

    def request_begun(self, head: RequestHead) -> None:
        """A head is complete; a body may follow."""
        ...

    def body_received(self, data: bytes) -> None:
        """A piece of the body, within the limit."""
        ...

    def request_ended(self) -> None:
        """The request is whole."""
        ...


class Upgrade(Exception):  # noqa: N818 - a turn of the connection, not an error
    """The client asks for another protocol.

    Attributes:
        head: the request as bytes, for another parser.
        consumed: octets of the fed data up to the end of that head.
    """

    def __init__(self, head: bytes, consumed: int) -> None:
        super().__init__("upgrade")
        self.head = head
        self.consumed = consumed


class RequestReader:
    """Feeds one connection's bytes to httptools and tells a sink what they say.

    After any exception it must not be fed again. A head of 1 MB, a body over the limit and
    chunk framing that outweighs its body end it before they are held in memory.
    """

    def __init__(self, sink: RequestSink, limits: Http1Limits) -> None:
        self._sink = sink
        self._limits = limits
        self._parser = httptools.HttpRequestParser(self)
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head: RequestHead | None = None
        self._fed_bytes = 0
        self._wire_bytes = 0
        self._body_bytes = 0
        # where the request line stands: the portion with it, or all of its portions
        self._fed = b""
        self.in_head = False
        self.in_body = False

    @property
    def asked(self) -> Unanswered:
        """What is known of the request being read, or of the last one."""
        return Unanswered(
            self._head.method if self._head is not None else "",
            self._target.partition(b"?")[0].decode("ascii", "replace"),
            {name.decode("latin-1"): value.decode("latin-1") for name, value in self._headers},
        )

    def feed(self, data: bytes) -> None:
        """Parses the next bytes, in portions that the caller keeps small.

        Raises:
            Refused: malformed, or over a limit.
            Upgrade: the connection changes its protocol.
        """
        self._fed_bytes = len(data)
        if not self.in_head:
            self._fed = data
        elif not self._headers:
            self._fed += data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            head, consumed = self._asked_head(), upgrade.args[0]
            if head.method == "CONNECT":
                raise Refused(501, "CONNECT is for proxies, and this is none") from None
            if _turns_over(head):
                raise Upgrade(_encoded(head), consumed) from None
            # the parser takes nothing behind such a head: another one reads it without the wish
            self._parser = httptools.HttpRequestParser(self)
            self.in_head = False
            self.feed(_encoded(_without_upgrade(head)) + data[consumed:])
            return
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, Refused):
                raise error.__context__ from None
            raise
        except httptools.HttpParserError as error:
            self._raise_unless_behind_the_last(error)
        if self.in_head or self.in_body:
            self._weigh(len(data))

    def on_message_begin(self) -> None:
        """httptools: the first byte of a request."""
        self._target = b""
        self._headers = []
        self._head = None
        self._wire_bytes = 0
        self._body_bytes = 0
        self.in_head = True

    def on_url(self, part: bytes) -> None:
        """httptools: a piece of the target."""
        self._target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one whole header, or a trailer, which is dropped."""
        if self.in_head:
            self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """httptools: the empty line behind the headers."""
        parser = self._parser
        if self._wire_bytes + self._fed_bytes > self._limits.head_bytes:
            self._weigh_head()
        head = RequestHead(
            parser.get_method().decode("ascii"),
            self._target,
            parser.get_http_version(),
            self._headers,
            parser.should_keep_alive(),
            expects_continue=False,
        )
        self._check(head)
        self._head = head
        self.in_head = False
        if not parser.should_upgrade():
            self.in_body = True
            self._sink.request_begun(head)

    def on_body(self, data: bytes) -> None:
        """httptools: a piece of the body, chunk framing removed."""
        self._body_bytes += len(data)
        if self._body_bytes > self._limits.body_bytes:
            self._refuse_body()
        self._sink.body_received(data)

    def on_message_complete(self) -> None:
        """httptools: the end of a request."""
        if self.in_body:
            self.in_body = False
            self._sink.request_ended()

    def _weigh_head(self) -> None:
        size = len(self._target) + sum(len(name) + len(value) + 4 for name, value in self._headers)
        if size > self._limits.head_bytes:
            raise Refused(431, "the request's headers are too large")

    def _check(self, head: RequestHead) -> None:
        fed, behind = self._fed, len(head.method) + 1
        if not (
            fed.startswith(head.target, behind)
            and fed.startswith(b"HTTP/", behind + len(head.target) + 1)
        ):
            line = b"%b %b " % (head.method.encode(), head.target)
            if any(line + other in fed for other in _OTHER_PROTOCOLS):
                raise Refused(400, "the request line names another protocol than HTTP")
        if head.http_version not in {"1.1", "1.0"}:
            raise Refused(505, "only HTTP/1.1 and HTTP/1.0 are spoken here")
        hosts = 0
        for name, value in head.headers:
            if name == b"host":
                hosts += 1
            elif name in _SPECIAL:
                self._check_special(head, name, value.lower())
        if hosts > 1 or (hosts == 0 and head.http_version == "1.1"):
            raise Refused(400, "exactly one Host header is needed")

    def _check_special(self, head: RequestHead, name: bytes, value: bytes) -> None:
        if name == b"content-length":
            if int(value) > self._limits.body_bytes:
                self._refuse_body()
        elif name == b"transfer-encoding":
            if value != b"chunked":
                raise Refused(501, "of the transfer codings only chunked is known")
            if head.http_version == "1.0":
                # RFC 9112, 6.1: its framing may have been read otherwise on the way
                head.keep_alive = False
        elif value == b"100-continue":
            head.expects_continue = head.http_version == "1.1"
        else:
            raise Refused(417, "the only expectation known is 100-continue")

    def _refuse_body(self) -> None:
        raise Refused(413, f"the body is larger than {self._limits.body_bytes} bytes")

    def _weigh(self, fed: int) -> None:
        # Counted from the portion after the one in which the head began, or the body.
        self._wire_bytes += fed
        if self.in_head and self._wire_bytes > self._limits.head_bytes:
            raise Refused(431, "the request's headers are too large")
        allowed = self._limits.head_bytes + self._body_bytes * _OVERHEAD_PER_BODY_BYTE
        if self.in_body and self._wire_bytes - self._body_bytes > allowed:
            raise Refused(431, "the chunks' framing and trailers outweigh the body")

    def _raise_unless_behind_the_last(self, error: Exception) -> None:
        # Bytes behind a request that said `connection: close` are nobody's business.
        done = self._head is not None and not self.in_head and not self.in_body
        if not (done and self._head is not None and not self._head.keep_alive):
            raise Refused(400, f"malformed HTTP: {error}") from None

    def _asked_head(self) -> RequestHead:
        if self._head is None:
            raise Refused(400, "malformed HTTP: an upgrade without a request")
        return self._head


def _encoded(head: RequestHead) -> bytes:
    lines = [f"{head.method} ".encode(), head.target, f" HTTP/{head.http_version}\r\n".encode()]
    lines += [b"%b: %b\r\n" % pair for pair in head.headers]
    return b"".join([*lines, b"\r\n"])


def _without_upgrade(head: RequestHead) -> RequestHead:
    """The same request, without the wish for another protocol."""
    kept: list[tuple[bytes, bytes]] = []
    for name, value in head.headers:
        if name == b"connection":
            tokens = [token.strip() for token in value.split(b",")]
            value = b", ".join(one for one in tokens if one.lower() not in _UPGRADING)  # noqa: PLW2901
        if name not in _UPGRADING and (value or name != b"connection"):
            kept.append((name, value))
    return replace(head, headers=kept)


def _turns_over(head: RequestHead) -> bool:
    """True for what another protocol goes on from. A wish for h2c is answered in HTTP/1.1.

    A proxy that does not know h2c would pass on, past its own rules, whatever comes behind it.
    """
    asked = (value.strip().lower() for name, value in head.headers if name == b"upgrade")
    return b"websocket" in asked

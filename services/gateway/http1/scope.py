"""The ASGI scope of one request."""

from typing import Any, NamedTuple
from urllib.parse import unquote

import httptools

from services.gateway.http1.direct import EXTENSION
from services.gateway.http1.limits import Refused
from services.gateway.http1.reader import RequestHead

_ASGI = {"spec_version": "2.1", "version": "3.0"}


class ConnectionPeer(NamedTuple):
    """What every request of one connection has in common."""

    scheme: str
    root_path: str
    client: tuple[str, int] | None
    server: tuple[str, int] | None
    state: dict[str, Any]


def split_target(target: bytes) -> tuple[bytes, bytes]:
    """Splits a request target into raw path and query.

    Accepts the origin form, the absolute form and `*` (RFC 9112, 3.2).

    Raises:
        Refused: it is none of them.
    """
    if not target.startswith(b"/") and target != b"*":
        try:
            url = httptools.parse_url(target)
        except httptools.HttpParserInvalidURLError:
            raise Refused(400, "the request target is no URL") from None
        return url.path or b"/", url.query or b""
    path, _, query = target.partition(b"?")
    return path, query


def build_scope(head: RequestHead, peer: ConnectionPeer, exchange: object) -> dict[str, Any]:
    """Builds the scope; the keys and the spec version are those of stock Hypercorn.

    Raises:
        Refused: the target is no URL.
    """
    raw_path, query = split_target(head.target)
    path = raw_path.decode("ascii", "replace")
    return {
        "type": "http",
        "http_version": head.http_version,
        "asgi": _ASGI,
        "method": head.method,
        "scheme": peer.scheme,
        "path": unquote(path) if "%" in path else path,
        "raw_path": raw_path,
        "query_string": query,
        "root_path": peer.root_path,
        "headers": head.headers,
        "client": peer.client,
        "server": peer.server,
        "state": peer.state.copy(),
        "extensions": {EXTENSION: exchange},
    }

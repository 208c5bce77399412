"""CORS: which web pages may send requests, and what they may read of the answers.

Browsers send a page's requests only where the server allows its origin, and hide every header
that it does not name. Nothing is allowed unless the operator says so: a page that may ask an open
gateway on somebody's machine uses that machine.
Source: the Fetch standard, section "CORS protocol".
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Mapping, Sequence
from typing import Final

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from services.gateway.http1.direct import EXTENSION

# What clients read besides the body: ids for complaints, and when to come again.
_EXPOSED: Final = ("x-request-id", "request-id", "retry-after", "www-authenticate")
_ALL: Final = "*"
# For the gateway's own pages alone, and for no others' whatever the settings allow elsewhere.
_OWN_PATHS: Final = ("/ui", "/admin")


class Origins:
    """The origins whose pages may send requests (`gateway.cors_origins`).

    Attributes:
        version: grows when there are others.
        are_any: pages of some origins may.
        exact: those that are written out.
        pattern: what the others match.
        allows_all: pages of all origins may.
    """

    def __init__(self, origins: Sequence[str]) -> None:
        """Reads `GatewaySettings.cors_origins`."""
        self.version = 0
        self.use(origins)

    def use(self, origins: Sequence[str]) -> None:
        """Allows these from now on, in place of those before."""
        self.version += 1
        self.are_any = bool(origins)
        patterns = [_pattern(one) for one in origins if _ALL in one and one != _ALL]
        self.exact = [one for one in origins if _ALL not in one or one == _ALL]
        self.pattern = "|".join(patterns) or None
        self.allows_all = _ALL in self.exact

    def allows(self, origin: str) -> bool:
        """True if pages of this origin may send requests."""
        if self.allows_all or origin in self.exact:
            return True
        return self.pattern is not None and re.fullmatch(self.pattern, origin) is not None

    def headers_for(self, asked: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
        """The headers that let a page read an answer which is made outside of the app.

        Args:
            asked: the request's headers.
        """
        origin = asked.get("origin")
        if origin is None or not self.allows(origin):
            return []
        return [
            (b"access-control-allow-origin", origin.encode("latin-1")),
            (b"access-control-expose-headers", ", ".join(_EXPOSED).encode()),
            (b"vary", b"Origin"),
        ]


class Cors:
    """An ASGI app around another: answers preflights, which carry no key, and names the headers.

    Requests without an `origin`, which are all but those of browsers, pass untouched.
    """

    def __init__(self, app: ASGIApp, origins: Origins) -> None:
        self._app = app
        self._origins = origins
        self._version = 0

    def _made(self) -> CORSMiddleware:
        """The rules of the origins that are allowed now."""
        return CORSMiddleware(
            self._app,
            allow_origins=self._origins.exact,
            allow_origin_regex=self._origins.pattern,
            allow_methods=("GET", "POST", "DELETE"),
            allow_headers=(_ALL,),
            expose_headers=_EXPOSED,
            # the gateway is often on the user's own machine or network
            allow_private_network=True,
        )

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serves one connection."""
        if not self._origins.are_any:
            return self._app(scope, receive, send)
        return self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._version != self._origins.version:
            self._version, self._rules = self._origins.version, self._made()
        found = (value for name, value in scope.get("headers", ()) if name == b"origin")
        # a page's WebSocket needs no leave to read; whether it may ask, `CrossSiteCheck` decides
        if (
            next(found, None) is None
            or scope["type"] != "http"
            or scope["path"].startswith(_OWN_PATHS)
        ):
            await self._app(scope, receive, send)
        else:
            # the short way to the socket knows nothing of what is added to the head here
            extensions = {k: v for k, v in scope["extensions"].items() if k != EXTENSION}
            await self._rules({**scope, "extensions": extensions}, receive, send)


def _pattern(origin: str) -> str:
    """`http://localhost:*` as a regular expression; the asterisk stands for no slash."""
    return r"[^/]*".join(re.escape(piece) for piece in origin.split(_ALL))

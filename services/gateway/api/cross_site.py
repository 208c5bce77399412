"""Refuses requests that pages of other sites have made, before anybody looks at their keys.

A browser sends what a page asks for from wherever it stands, also to a gateway on the user's own
machine or network, and with types such as `text/plain` without asking the gateway first. So a
request that says that it comes from another site is refused, unless `gateway.cors_origins` allows
the site. And a page whose name its owner points at 127.0.0.1 (DNS rebinding) is of the same site
to the browser: it is known by the name that it calls the gateway by.
Sources: the Fetch standard; Fetch Metadata Request Headers (W3C).
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from services.backplane.errors import FleetError, Reason
from services.gateway.api.cors import Origins
from services.gateway.api.error_responses import ErrorResponses
from services.gateway.api.head import client_address
from services.gateway.auth.auth import Auth

_ALL: Final = "*"
_LOCAL: Final = ("localhost", "host.docker.internal")


class CrossSiteCheck:
    """Refuses requests by the headers that browsers send.

    Args:
        origins: the sites whose pages may ask.
        hosts: the names by which the gateway may be called; None: by any.
    """

    def __init__(self, origins: Origins, hosts: Iterable[str] | None) -> None:
        self._origins = origins
        self._hosts = None if hosts is None else frozenset(one.lower() for one in hosts)
        if self._hosts is not None and _ALL in self._hosts:
            self._hosts = None
        self._is_known = functools.lru_cache(maxsize=256)(self._find)

    def check(self, headers: Mapping[str, str]) -> None:
        """Lets a request in, unless a page of another site has made it.

        1. With `Origin`: the site has to be the gateway's own or one of `gateway.cors_origins`.
        2. Without it, but marked as cross-site by the browser (`Sec-Fetch-Site`): all sites have to
           be allowed, because it does not say which one it is.
        3. Programs send neither, and are let in.
        4. The name in `Host` has to be the gateway's own.

        Raises:
            FleetError: FORBIDDEN: a page of another site has made it, or it calls the gateway by a
                name that is not its own.
        """
        if "origin" in headers:
            origin = headers["origin"]
            host = headers.get("host", "")
            if not (self._origins.allows(origin) or _is_own(origin, host)):
                raise FleetError(
                    Reason.FORBIDDEN,
                    f"Pages of {origin} may not ask here; gateway.cors_origins lists those that"
                    " may.",
                )
        elif (
            "sec-fetch-site" in headers
            and headers["sec-fetch-site"] == "cross-site"
            and not self._origins.allows_all
        ):
            raise FleetError(
                Reason.FORBIDDEN,
                "A page of another site has made this request; gateway.cors_origins lists the"
                " sites that may.",
            )
        self.check_host(headers)

    def check_own(self, headers: Mapping[str, str]) -> None:
        """Lets in what programs and the gateway's own pages ask, whatever sites are allowed.

        Raises:
            FleetError: FORBIDDEN: as from `check`.
        """
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site", "none")
        is_own = site in {"none", "same-origin"}
        if origin is not None:
            is_own = _is_own(origin, headers.get("host", ""))
        if not is_own:
            raise FleetError(
                Reason.FORBIDDEN,
                f"Pages of {origin or 'another site'} may not ask here: only the gateway's own may,"
                " whatever gateway.cors_origins lists.",
            )
        self.check_host(headers)

    def check_host(self, headers: Mapping[str, str]) -> None:
        """Lets a request in by the name that it calls the gateway by.

        Raises:
            FleetError: FORBIDDEN: it is not the gateway's own.
        """
        host = headers.get("host", "")
        if self._hosts is not None and host and not self._is_known(host):
            raise FleetError(
                Reason.FORBIDDEN,
                f"This gateway is not known by the name {host!r}; gateway.allowed_hosts lists its"
                " names besides localhost and its own host name.",
            )

    def _find(self, host: str) -> bool:
        name = host_name(host)
        if name in _LOCAL or name.endswith(".localhost") or name in (self._hosts or ()):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True  # nobody can point an address somewhere else


class WebSocketAdmission:
    """An ASGI app around another: lets WebSockets in, or refuses them at their handshake."""

    def __init__(
        self, app: ASGIApp, cross_site: CrossSiteCheck, auth: Auth, error_responses: ErrorResponses
    ) -> None:
        self._app = app
        self._cross_site = cross_site
        self._auth = auth
        self._error_responses = error_responses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one connection."""
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        try:
            self._cross_site.check(headers)
            await self._auth.prepare(headers, client_address(scope))
            self._auth.holder(headers, client_address(scope))
        except FleetError as error:
            await receive()
            worded = self._error_responses.refusal(error, scope["path"], headers)
            size = (b"content-length", b"%d" % len(worded.body))
            await send(
                {
                    "type": "websocket.http.response.start",
                    "status": error.reason.row.http,
                    "headers": [*worded.headers, size],
                }
            )
            await send({"type": "websocket.http.response.body", "body": worded.body})
            return
        await self._app(scope, receive, send)


def host_name(host: str) -> str:
    """The name in a `Host` header, without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, _, _ = host.partition(":")
    return name.lower().rstrip(".")


def _is_own(origin: str, host: str) -> bool:
    """True if a page that the gateway itself serves has asked."""
    try:
        return bool(host) and urlsplit(origin).netloc == host
    except ValueError:
        return False

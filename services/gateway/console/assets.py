"""The files of the page: read once, compressed once, and served with a strict content policy."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from types import MappingProxyType
from typing import Final

import msgspec
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from services.backplane.errors import FleetError, Reason
from services.gateway.api.cross_site import CrossSiteCheck
from services.gateway.api.error_responses import ErrorResponses
from services.gateway.api.operators.call import SAFE_HEADERS

PAGE: Final = "index.html"
_KINDS: Final = MappingProxyType(
    {
        ".html": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".svg": "image/svg+xml",
        ".md": "text/markdown; charset=utf-8",
        ".txt": "text/plain; charset=utf-8",
    }
)
# Nothing but the gateway's own files, no inline script, no string that becomes code or markup
# without DOMPurify, nobody's frame.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
    " require-trusted-types-for 'script'; trusted-types dompurify"
)


class Asset(msgspec.Struct, frozen=True):
    """One file.

    Attributes:
        kind: its media type.
        plain: as it is.
        packed: compressed with gzip.
        tag: tells its versions apart.
    """

    kind: str
    plain: bytes
    packed: bytes
    tag: str


def load() -> Mapping[str, Asset]:
    """All files by their path below `/ui/`."""
    found: dict[str, Asset] = {}
    _collect(resources.files("services.gateway.console") / "web", "", found)
    return found


def _collect(folder: Traversable, prefix: str, found: dict[str, Asset]) -> None:
    for entry in folder.iterdir():
        path = prefix + entry.name
        if entry.is_dir():
            _collect(entry, f"{path}/", found)
            continue
        kind = _KINDS.get(entry.name[entry.name.rfind(".") :])
        if kind is not None:
            plain = entry.read_bytes()
            tag = f'"{hashlib.sha256(plain).hexdigest()[:20]}"'
            found[path] = Asset(kind, plain, gzip.compress(plain, 9, mtime=0), tag)


class Page:
    """Serves the files to whoever may call the gateway by its name; they hold no secret.

    Args:
        cross_site: knows the names by which the gateway may be called.
        error_responses: words refusals.
    """

    def __init__(self, cross_site: CrossSiteCheck, error_responses: ErrorResponses) -> None:
        self._cross_site = cross_site
        self._error_responses = error_responses
        self._assets = load()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        request = Request(scope, receive)
        await self._answer(request)(scope, receive, send)

    def _answer(self, request: Request) -> Response:
        path = request.path_params.get("path", "") or PAGE
        try:
            self._cross_site.check_host(request.headers)
        except FleetError as error:
            return self._refusal(request, error)
        asset = self._assets.get(path)
        if asset is None:
            told = f"The console has no file {path[:200]!r}."
            return self._refusal(request, FleetError(Reason.NOT_FOUND, told))
        headers = {name.decode(): value.decode() for name, value in SAFE_HEADERS}
        headers |= {
            "content-security-policy": POLICY,
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
            "cache-control": "no-cache",
            "etag": asset.tag,
            "vary": "accept-encoding",
        }
        if asset.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["content-encoding"] = "gzip"
            return Response(asset.packed, headers=headers, media_type=asset.kind)
        return Response(asset.plain, headers=headers, media_type=asset.kind)

    def _refusal(self, request: Request, error: FleetError) -> Response:
        worded = self._error_responses.refusal(error, request.url.path, request.headers)
        return Response(
            worded.body,
            status_code=error.reason.row.http,
            headers={name.decode(): value.decode("latin-1") for name, value in worded.headers},
        )


async def _to_page(_: Request) -> Response:
    """The page's relative addresses need the slash at its end, also below a proxy's path."""
    return RedirectResponse("ui/", status_code=308)


def routes(page: Page) -> Sequence[Route]:
    """The page and its files."""
    methods = ["GET", "HEAD"]
    return [
        Route("/ui", _to_page, methods=methods),
        Route("/ui/", page, methods=methods),
        Route("/ui/{path:path}", page, methods=methods),
    ]

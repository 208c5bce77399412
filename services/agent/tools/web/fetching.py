"""One page from the web, by an address that was checked, within a size and a time.

A name is resolved once, all its addresses are checked, and the connection goes to the very address
that was: a server of names cannot answer one thing to the check and another to the connection.
Through a proxy only the proxy connects; what this machine itself knows of a name is checked too.
"""

import asyncio
import codecs
import socket
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import httpx2

import services
from services.agent.core.web_site import is_same_site, site
from services.agent.tools.web.addresses import is_public
from services.backplane.timeouts import timeout

SECONDS = 30.0
MOST_BYTES = 5 * 1024 * 1024
_MOST_REDIRECTS = 5
_MOST_ADDRESSES = 3  # that are tried
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = {
    "user-agent": f"cortex-acp/{services.__version__}",
    "accept": "text/html, text/markdown, text/plain, application/json, */*;q=0.1",
    "accept-encoding": "gzip, deflate",
}
_PACKINGS = frozenset({"", "identity", "gzip", "deflate"})  # which are unpacked piece by piece
# Python's own, which no page is written in; a few take the square of a page's length.
_NO_CHARSETS = frozenset({"punycode", "idna", "unicode_escape", "raw_unicode_escape", "undefined"})

Resolve = Callable[[str, int], Awaitable[list[str]]]
Check = Callable[[str], None]


class FetchError(Exception):
    """A page cannot be had; the message is what the model reads."""


class OtherSiteError(FetchError):
    """A page has moved to another site, which nobody has permitted."""


@dataclass(frozen=True, slots=True)
class FetchedPage:
    """An answer, whatever its status.

    Attributes:
        url: where it came from in the end.
        content_type: without parameters, lower case; empty where the server says none.
        is_cut: there was more than MOST_BYTES.
    """

    url: str
    status: int
    content_type: str
    text: str
    is_cut: bool


async def resolved(host: str, port: int) -> list[str]:
    """Returns the addresses of a name; raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


async def fetch(
    url: str,
    *,
    environment: Mapping[str, str],
    before: Callable[[], None],
    permit_private: Check,
    resolve: Resolve = resolved,
) -> FetchedPage:
    """Returns a page, having followed redirects within its site.

    Args:
        url: http or https, without credentials.
        environment: where a proxy is named (`https_proxy`, `no_proxy` and their like).
        before: called before each request; what it raises ends the fetch.
        permit_private: called with the URL before an address that is not public is asked;
            raises where that is not permitted.
        resolve: returns the addresses of a name and a port.

    Raises:
        FetchError: it is no such URL, cannot be reached, is no text, or leads elsewhere.
    """
    try:
        async with timeout(SECONDS):
            for _ in range(_MOST_REDIRECTS + 1):
                before()
                page = await _once(url, environment, permit_private, resolve)
                if isinstance(page, FetchedPage):
                    return page
                if not is_same_site(url, page):
                    raise OtherSiteError(f"it has moved to another site; to go on, fetch {page}")
                url = page
    except TimeoutError as error:
        raise FetchError(f"no whole answer within {SECONDS:g} s") from error
    raise FetchError(f"more than {_MOST_REDIRECTS} redirects")


async def _once(
    url: str, environment: Mapping[str, str], permit_private: Check, resolve: Resolve
) -> FetchedPage | str:
    """Returns the answer of one request, or where it redirects to."""
    if not site(url):
        raise FetchError("only http and https addresses with a host and no credentials are fetched")
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    proxy = proxy_of(url, environment)
    try:
        addresses = await resolve(host, port)
    except (OSError, UnicodeError) as error:
        if not proxy:
            raise FetchError(f"{host} cannot be resolved: {error}") from error
        addresses = []
    if not all(map(is_public, addresses)):
        permit_private(url)
    failure = ""
    for address in [None] if proxy else addresses[:_MOST_ADDRESSES]:
        try:
            return await _ask(url, address, proxy)
        except httpx2.ConnectError as error:
            failure = str(error)
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError, ImportError) as error:
            raise FetchError(f"it cannot be fetched: {error or type(error).__name__}") from error
    raise FetchError(f"{host} cannot be reached: {failure}")


async def _ask(url: str, address: str | None, proxy: str) -> FetchedPage | str:
    """Sends one request, to the address where one is given; the server sees the name."""
    target = httpx2.URL(url)
    headers, extensions = dict(_HEADERS), {}
    if address is not None:
        headers["host"] = target.netloc.decode("ascii")
        extensions = {"sni_hostname": target.raw_host.decode("ascii")}
        target = target.copy_with(host=address)
    transport = httpx2.AsyncHTTPTransport(proxy=proxy or None)
    async with (
        httpx2.AsyncClient(transport=transport, timeout=SECONDS, trust_env=False) as client,
        client.stream("GET", target, headers=headers, extensions=extensions) as response,
    ):
        if response.status_code in _REDIRECTS and (location := response.headers.get("location")):
            return urljoin(url, location)
        content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if not _is_text(content_type):
            raise FetchError(f"it is {content_type}, not text")
        packing = response.headers.get("content-encoding", "").strip().lower()
        if packing not in _PACKINGS:
            raise FetchError(f"it is packed as {packing:.50}, which nobody asked for")
        data = bytearray()
        async for piece in response.aiter_bytes():
            data += piece
            if len(data) > MOST_BYTES:
                break
        text = _decoded(bytes(data[:MOST_BYTES]), response.charset_encoding)
        return FetchedPage(url, response.status_code, content_type, text, len(data) > MOST_BYTES)


def proxy_of(url: str, environment: Mapping[str, str]) -> str:
    """Returns the proxy that the environment names for a URL, empty where there is none."""
    parts = urlsplit(url)
    lower = {key.lower(): value for key, value in environment.items() if value}
    names = [f"{parts.scheme}_proxy", "all_proxy"]
    host = f".{parts.hostname}"
    for entry in lower.get("no_proxy", "").lower().split(","):
        domain = entry.strip().lstrip(".")
        if domain == "*" or (domain and host.endswith(f".{domain}")):
            return ""
    found = next((lower[name] for name in names if name in lower), "")
    return found if "://" in found or not found else f"http://{found}"


def _is_text(content_type: str) -> bool:
    kind = content_type.partition("/")[0]
    marks = ("json", "xml", "javascript", "yaml", "toml", "csv")
    return kind in {"", "text"} or any(mark in content_type for mark in marks)


def _decoded(data: bytes, charset: str | None) -> str:
    try:
        known = codecs.lookup(charset or "utf-8").name.replace("-", "_")
        return data.decode("utf-8" if known in _NO_CHARSETS else known, errors="replace")
    except (LookupError, ValueError):
        return data.decode(errors="replace")

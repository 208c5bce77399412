"""The connections to another server, and what may go wrong with an answer of it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import httpx2

from services.backplane.errors import FleetError
from services.backplane.settings import SettingsError
from services.backplane.timeouts import timeout
from services.gateway.transports.upstream.errors import Words
from services.gateway.transports.upstream.settings import UpstreamSettings, is_on_this_machine
from services.gateway.transports.upstream.sse import BrokenStreamError

STREAM: Final = "text/event-stream"
_KEEP_SECONDS: Final = 2.0
_MOST_ERROR_BYTES: Final = 64 << 10
_ERROR_SECONDS: Final = 5.0


def new_client(
    settings: UpstreamSettings, tls: ssl.SSLContext | None, place: str
) -> httpx2.AsyncClient:
    """The connections to one server.

    Args:
        settings: of the server.
        tls: how its certificate is checked; None: by this machine's authorities.
        place: where the settings stand, for messages.

    Raises:
        SettingsError: the environment names a proxy or authorities that cannot be used.
    """
    try:
        return _new_client(settings, tls)
    except (ImportError, ValueError, OSError, httpx2.InvalidURL):
        # not repeated: a password may stand in the address of a proxy
        told = (
            "HTTPS_PROXY, HTTP_PROXY or ALL_PROXY of the environment is no http(s)://HOST:PORT,"
            " or SSL_CERT_FILE or SSL_CERT_DIR cannot be read"
        )
        raise SettingsError(f"{place}: {told}") from None


def _new_client(settings: UpstreamSettings, tls: ssl.SSLContext | None) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(
        headers={"accept": f"{STREAM}, application/json", "accept-encoding": "identity"},
        # how long an answer may take is looked after by the call
        timeout=httpx2.Timeout(
            None, connect=settings.connect_seconds, write=settings.first_byte_seconds
        ),
        # kept for less than servers keep one: none is used that its server is about to close
        limits=httpx2.Limits(
            max_keepalive_connections=settings.streams, keepalive_expiry=_KEEP_SECONDS
        ),
        follow_redirects=False,  # a key goes nowhere else
        # what one answer sets would go along with the requests of all others, and without a bound
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        # proxies of the environment are for what lies outside
        trust_env=not is_on_this_machine(settings.url),
        verify=True if tls is None else tls,
    )


async def head_of(
    client: httpx2.AsyncClient, request: httpx2.Request, words: Words, seconds: float | None
) -> httpx2.Response:
    """The head of an answer; the response has to be closed.

    Args:
        client: sends the request.
        request: what is posted.
        words: words the error.
        seconds: longest wait; None: whoever calls looks after it.

    Raises:
        FleetError: it takes too long.
    """
    try:
        async with timeout(seconds):
            return await client.send(request, stream=True)
    except TimeoutError as error:
        raise words.away(f"did not answer within {seconds:g} seconds") from error


async def posted(
    client: httpx2.AsyncClient,
    request: httpx2.Request,
    *,
    words: Words,
    settings: UpstreamSettings,
    most_bytes: int,
) -> bytes:
    """The body of an answer that is no stream.

    Args:
        client: sends the request.
        request: what is posted.
        words: words errors.
        settings: the deadlines.
        most_bytes: of the body.

    Raises:
        FleetError: the server refuses, fails, or takes too long.
    """
    seconds = settings.connect_seconds + settings.first_byte_seconds
    try:
        async with timeout(settings.answer_seconds):
            response = await head_of(client, request, words, seconds)
            try:
                await require_ok(response, words)
                return await body_of(response, most_bytes)
            finally:
                await response.aclose()
    except (BrokenStreamError, httpx2.HTTPError) as error:
        raise failure_of(error, words, settings) from error
    except TimeoutError as error:
        raise words.endless(settings.answer_seconds) from error


async def require_ok(response: httpx2.Response, words: Words) -> None:
    """Checks the head of an answer.

    Raises:
        FleetError: the server refuses, in its words.
        BrokenStreamError: it is compressed.
    """
    if response.status_code != HTTPStatus.OK:
        body = await beginning_of(response)
        raise words.refused(response.status_code, response.headers, body)
    if response.headers.get("content-encoding", "identity") != "identity":
        raise BrokenStreamError("it answers in a coding that was not asked for")


async def body_of(response: httpx2.Response, most: int) -> bytes:
    """The whole body of an answer.

    Raises:
        BrokenStreamError: it has more bytes than `most`.
    """
    found = bytearray()
    async for chunk in response.aiter_raw():
        found += chunk
        if len(found) > most:
            raise BrokenStreamError(f"its answer has more than {most >> 20} MiB")
    return bytes(found)


async def beginning_of(response: httpx2.Response) -> bytes:
    """As much of an error's body as is worth reading, within seconds."""
    found = bytearray()
    try:
        async with timeout(_ERROR_SECONDS):
            async for chunk in response.aiter_raw():
                found += chunk
                if len(found) > _MOST_ERROR_BYTES:
                    break
    except (TimeoutError, httpx2.HTTPError):
        pass  # the status says the most of it
    return bytes(found[:_MOST_ERROR_BYTES])


def failure_of(
    error: httpx2.HTTPError | BrokenStreamError, words: Words, settings: UpstreamSettings
) -> FleetError:
    """What went wrong on the way to a server, or with what it said."""
    if isinstance(error, BrokenStreamError):
        return words.failed(f"cannot be understood: {error}")
    if isinstance(error, httpx2.ConnectTimeout):
        return words.away(f"could not be reached within {settings.connect_seconds:g} seconds")
    if isinstance(error, httpx2.ConnectError):
        return words.away(f"could not be reached ({error})")
    what = str(error) or type(error).__name__
    return words.failed(f"closed the connection within the answer ({what})")


def request_of(
    client: httpx2.AsyncClient, url: str, body: bytes, headers: Mapping[str, str]
) -> httpx2.Request:
    """What is posted."""
    return client.build_request("POST", url, content=body, headers=headers)

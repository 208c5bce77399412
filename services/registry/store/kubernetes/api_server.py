"""Calls to a Kubernetes API server: with deadlines, repeated where that helps, the token read anew.

Only what can be repeated is: reads, and writes that carry the version which they replace.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import random
import ssl
import time
from typing import Any, Final, NamedTuple

import httpx2
import msgspec

from services.backplane.timeouts import timeout
from services.registry.store.kubernetes.address import KubernetesAddress
from services.registry.store.store import StoreError

Body = dict[str, Any]
CALL_SECONDS: Final = 5.0
"""How long a call may take, with all that is repeated of it."""
_ATTEMPT_SECONDS: Final = 2.0
_FIRST_PAUSE: Final = 0.1
_LONGEST_PAUSE: Final = 1.0
# An object has no more than 1 MiB, which is a third more in base64; and what it tells of itself.
_MOST_ANSWER_BYTES: Final = 4 << 20
_MOST_TOLD: Final = 300
_ACCOUNT: Final = pathlib.Path("/var/run/secrets/kubernetes.io/serviceaccount")
# No status: nothing was heard.
_UNREACHED: Final = 0
_AGAIN: Final = frozenset({_UNREACHED, 429, 500, 502, 503, 504})
_UNAUTHORIZED: Final = 401
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409


class _Answer(NamedTuple):
    status: int
    body: Body
    told: str
    wait: float = 0.0
    """Seconds after which the server wants to be asked again."""

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300  # noqa: PLR2004 - what HTTP calls success


def metadata_of(body: Body) -> Body:
    """An object's metadata as it may be written again; empty where it has none."""
    metadata: Any = body.get("metadata")
    kept: Body = metadata if isinstance(metadata, dict) else {}
    return {name: kept[name] for name in kept if name != "managedFields"}


class ConflictError(StoreError):
    """The object is not as it was when it was read; or it is there, and was to be made."""


class ApiServer:
    """The API server of one cluster.

    Args:
        address: says which, and how it is reached.
    """

    def __init__(self, address: KubernetesAddress) -> None:
        self._address = address
        self._client: httpx2.AsyncClient | None = None
        self._tls: ssl.SSLContext | None = None

    async def get(self, path: str, *, seconds: float = CALL_SECONDS) -> Body | None:
        """An object as it is now; None where there is none."""
        return await self._call("GET", path, None, seconds)

    async def create(self, path: str, body: Body, *, seconds: float = CALL_SECONDS) -> Body:
        """Makes an object in a collection.

        Raises:
            ConflictError: it is there.
            StoreError: as all calls: the server cannot be reached, or refused.
        """
        return _there(await self._call("POST", path, body, seconds), path)

    async def replace(self, path: str, body: Body, *, seconds: float = CALL_SECONDS) -> Body | None:
        """Replaces an object, as the version that the body names; None where there is none.

        Raises:
            ConflictError: it has another version.
        """
        return await self._call("PUT", path, body, seconds)

    async def remove(self, path: str, *, seconds: float = CALL_SECONDS) -> None:
        """Removes an object; one that is not there is ignored."""
        await self._call("DELETE", path, None, seconds)

    async def close(self) -> None:
        """Disconnects."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _call(self, method: str, path: str, body: Body | None, seconds: float) -> Body | None:
        content = None if body is None else msgspec.json.encode(body)
        ends_at = time.monotonic() + seconds
        pause, refused, told = _FIRST_PAUSE, 0, ""
        while True:
            left = ends_at - time.monotonic()
            answer = await self._attempt(method, path, content, left)
            if answer.status != _UNREACHED or left >= _ATTEMPT_SECONDS or not told:
                told = answer.told  # else this attempt had no time, and what came before says more
            if answer.is_good:
                return answer.body
            if answer.status == _NOT_FOUND and method != "POST":
                return None
            if answer.status == _CONFLICT:
                raise ConflictError(answer.told)
            if answer.status == _UNAUTHORIZED and not refused:
                refused = 1  # the token was replaced between its reading and the call
                continue
            wait = max(answer.wait, pause * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
            if answer.status not in _AGAIN or time.monotonic() + wait >= ends_at:
                raise StoreError(told)
            await asyncio.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _attempt(self, method: str, path: str, content: bytes | None, left: float) -> _Answer:
        try:
            async with timeout(min(left, _ATTEMPT_SECONDS)):
                client = self._connected()
                headers = self._headers()
                request = client.build_request(method, path, content=content, headers=headers)
                response = await client.send(request, stream=True)
                try:
                    found = await _read(response)
                finally:
                    await response.aclose()
        except (httpx2.HTTPError, TimeoutError, OSError) as error:
            self._trust()
            detail = str(error) or "it does not answer"
            return _Answer(_UNREACHED, {}, f"Kubernetes: no API server: {detail}")
        status, wait = response.status_code, response.headers.get("retry-after", "")
        told = f"Kubernetes: {status}: {str(found.get('message') or path)[:_MOST_TOLD]}"
        return _Answer(status, found, told, float(wait) if wait.isdecimal() else 0.0)

    def _headers(self) -> dict[str, str]:
        """With the token as it is now: it is replaced about once an hour."""
        headers = {
            "accept": "application/json",
            "content-type": "application/json",
            "user-agent": "cortex-registry",
        }
        path = self._address.token_file
        if not path and not self._address.server.startswith("http://"):
            path = str(_ACCOUNT / "token")
        if path:
            token = pathlib.Path(path).read_text("utf-8").strip()
            headers["authorization"] = f"Bearer {token}"
        return headers

    def _connected(self) -> httpx2.AsyncClient:
        if self._client is None:
            server = self._address.server or _own_server()
            if not server.startswith("http://"):
                self._tls = ssl.create_default_context(cafile=self._authorities())
            self._client = httpx2.AsyncClient(
                base_url=server,
                verify=self._tls or ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),  # else HTTP
                timeout=httpx2.Timeout(_ATTEMPT_SECONDS),
                limits=httpx2.Limits(max_connections=16, keepalive_expiry=30.0),
                follow_redirects=False,  # the token goes nowhere else
                trust_env=False,
            )
        return self._client

    def _trust(self) -> None:
        """Reads the authorities again: they are replaced too, though seldom."""
        if self._tls is not None:
            with contextlib.suppress(OSError):
                self._tls.load_verify_locations(self._authorities())

    def _authorities(self) -> str:
        return self._address.ca_file or str(_ACCOUNT / "ca.crt")


def _own_server() -> str:
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
    if not host:
        raise StoreError(
            "Kubernetes: this process runs in no cluster (KUBERNETES_SERVICE_HOST is not set);"
            " outside of one the URL names ?server=https://HOST:PORT&token_file=…&ca_file=…"
        )
    return f"https://{f'[{host}]' if ':' in host else host}:{port or 443}"


async def _read(response: httpx2.Response) -> Body:
    found = bytearray()
    async for chunk in response.aiter_bytes():
        found += chunk
        if len(found) > _MOST_ANSWER_BYTES:
            raise StoreError("Kubernetes: an answer of the API server is larger than 4 MiB.")
    try:
        body: Any = msgspec.json.decode(found)
    except msgspec.DecodeError:
        body = {}  # of a proxy in between: the status says it
    return body if isinstance(body, dict) else {}


def _there(found: Body | None, path: str) -> Body:
    if found is None:
        raise StoreError(f"Kubernetes: there is no {path}")
    return found

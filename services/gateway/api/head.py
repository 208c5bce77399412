"""Reads the head of a request, and its id."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

import msgspec
from starlette.types import Scope

from services.backplane.errors import FleetError, Reason
from services.gateway.dialects.dialect import Head, ReadAllowance

_LONGEST_ID: Final = 128
# What curl sends when nobody tells it that the body is JSON, and what scripts send.
_TOLERATED_TYPES: Final = frozenset(
    {"", "text/plain", "application/x-www-form-urlencoded", "application/octet-stream"}
)
_MOST_SEARCHED_BYTES: Final = 128 << 10
_PROCESS: Final = secrets.token_hex(6)
_COUNTER: Final = itertools.count(1)


def new_request_id() -> str:
    """An id that no other request has."""
    return f"req_{_PROCESS}{next(_COUNTER):08x}"


def lone_head(headers: Mapping[str, str]) -> Head:
    """The head of a request that reaches no endpoint, for the wording of its refusal."""
    return Head(
        request_id=_request_id(headers.get("x-request-id")),
        headers=headers,
        query={},
        created_unix_seconds=int(time.time()),
        path={},
    )


def read_head(scope: Scope, allowance: ReadAllowance | None = None) -> Head:
    """What a dialect may see of a request besides its body, and what it may read besides it."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    query = scope["query_string"]
    return Head(
        request_id=_request_id(headers.get("x-request-id")),
        headers=headers,
        query=dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True)) if query else {},
        created_unix_seconds=int(time.time()),
        path=scope.get("path_params") or {},
        allowance=allowance,
    )


def client_address(scope: Scope) -> str:
    """Where a request comes from; empty for a Unix socket."""
    client = scope.get("client")
    return str(client[0]) if client else ""


def _request_id(given: str | None) -> str:
    """The client's own id where it can be repeated in a header and in a log, else a new one."""
    if given and len(given) <= _LONGEST_ID and given.isascii() and given.isprintable():
        return given
    return new_request_id()


def id_headers(head: Head) -> tuple[tuple[bytes, bytes], tuple[bytes, bytes]]:
    """The request's id under the names that OpenAI's and Anthropic's SDKs look for."""
    name = head.request_id.encode("latin-1")
    return (b"x-request-id", name), (b"request-id", name)


def check_media_type(head: Head) -> None:
    """Refuses a request whose headers say that its body is no plain JSON.

    Raises:
        FleetError: UNSUPPORTED_MEDIA_TYPE.
    """
    given = head.headers.get("content-type", "")
    if given != "application/json":
        kind = given.partition(";")[0].strip().lower()
        if "json" not in kind and kind not in _TOLERATED_TYPES:
            raise FleetError(
                Reason.UNSUPPORTED_MEDIA_TYPE, f"The body is {kind!r}; application/json is read."
            )
    encoding = head.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"", "identity"}:
        raise FleetError(
            Reason.UNSUPPORTED_MEDIA_TYPE, f"The body is encoded as {encoding!r}; send it plain."
        )


class _Named(msgspec.Struct):
    model: str = ""


_NAMED: Final = msgspec.json.Decoder(_Named)


def model_in(body: bytes) -> str:
    """The model that a body names which could not be read as a whole; empty where it names none.

    Of a large body nothing is told: to search it would hold everybody up.
    """
    if len(body) > _MOST_SEARCHED_BYTES:
        return ""
    try:
        return _NAMED.decode(body).model
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""

"""KeyService over HTTP: at `/admin` of a gateway, with an admin key, in place of gRPC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote, urlencode

from google.protobuf import json_format
from google.protobuf.message import Message

from cortex.v1 import key_service_pb2 as pb
from services.backplane.errors import FleetError, Reason
from services.cli.sse import GatewayClient, words_of

# By method: verb, path of a request, and what of the request is the body, or None.
Way = tuple[str, Callable[[Any], str], Callable[[Any], Message | None]]

_SERVICE: Final = pb.DESCRIPTOR.services_by_name["KeyService"]


def _query(request: Message) -> str:
    given = json_format.MessageToDict(request, preserving_proto_field_name=True)
    given = {name: str(value).lower() if value is True else value for name, value in given.items()}
    return f"?{urlencode(given)}" if given else ""


def _nothing(_: Any) -> None:
    return None


_WAYS: Final[dict[str, Way]] = {
    "CreateKey": ("POST", lambda _: "/admin/keys", lambda it: it),
    "ListKeys": ("GET", lambda it: f"/admin/keys{_query(it)}", _nothing),
    "GetKey": ("GET", lambda it: f"/admin/keys/{quote(it.key, safe='')}", _nothing),
    "RotateKey": (
        "POST",
        lambda it: f"/admin/keys/{quote(it.key, safe='')}/rotate",
        lambda it: pb.RotateKeyRequest(overlap=it.overlap),
    ),
    "RevokeKey": ("DELETE", lambda it: f"/admin/keys/{quote(it.key, safe='')}", _nothing),
    "PutKeyGroup": (
        "PUT",
        lambda it: f"/admin/groups/{quote(it.group.name, safe='')}",
        lambda it: it.group,
    ),
    "ListKeyGroups": ("GET", lambda it: f"/admin/groups{_query(it)}", _nothing),
    "DeleteKeyGroup": ("DELETE", lambda it: f"/admin/groups/{quote(it.name, safe='')}", _nothing),
}


def ask_gateway(url: str, api_key: str, method: str, request: Message) -> Any:
    """One answer of KeyService, by way of a gateway.

    Args:
        url: of the gateway.
        api_key: with the role `admin`.
        method: of KeyService.
        request: its message.

    Raises:
        FleetError: as the gateway said it, or nobody answers there.
    """
    verb, path, body_of = _WAYS[method]
    body = body_of(request)
    sent = None
    if body is not None:
        sent = json_format.MessageToJson(body, preserving_proto_field_name=True).encode()
    try:
        status, told = GatewayClient(url, api_key=api_key).ask(verb, path(request), sent)
    except OSError as error:
        raise FleetError(Reason.REGISTRY_UNAVAILABLE, f"{url}: {error}") from error
    if status >= 400:  # noqa: PLR2004 - HTTP's classes of statuses
        raise FleetError(Reason.BAD_REQUEST, words_of(told, status))
    answer_type: Any = getattr(pb, _SERVICE.methods_by_name[method].output_type.name)
    return json_format.ParseDict(told or {}, answer_type(), ignore_unknown_fields=True)

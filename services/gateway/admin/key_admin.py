"""Keys and groups over HTTP: what `cortex keys` does, for holders of an admin key.

Bodies and answers are the contract's own messages, as JSON with its own field names.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Sequence
from typing import Any, Final, TypeVar

import msgspec
from google.protobuf import json_format
from google.protobuf.message import Message
from starlette.routing import Route

from cortex.v1 import key_service_pb2 as pb
from cortex.v1 import key_service_pb2_grpc as key_grpc
from services.backplane.errors import FleetError, Reason
from services.backplane.rpc.protobuf_json import json_fields, not_an_object
from services.gateway.api.operators.call import OperatorCall
from services.gateway.api.operators.endpoint import Bodies, OperatorEndpoints
from services.gateway.api.operators.registry_operator import RegistryOperator
from services.gateway.auth.auth import Auth
from services.gateway.auth.holder import ConsoleLevel
from services.gateway.dialects.common.json_body import bad, complained, not_json

_CREATED: Final = 201
_PAGE_FIELDS: Final = ("page_size", "page_token", "include_ended")
_AT_FAULT: Final = re.compile(r'field named "(\w+)"|Failed to parse (\w+) field')

RequestT = TypeVar("RequestT", bound=Message)


class DeletedGroup(msgspec.Struct):
    """The fields of the answer to a deletion."""

    name: str
    deleted: bool


_LISTED: Final = Bodies(answers=pb.ListKeysResponse.DESCRIPTOR)
_CREATION: Final = Bodies(pb.CreateKeyRequest.DESCRIPTOR, pb.CreateKeyResponse.DESCRIPTOR)
_SHOWN: Final = Bodies(answers=pb.GetKeyResponse.DESCRIPTOR)
_REVOKED: Final = Bodies(answers=pb.RevokeKeyResponse.DESCRIPTOR)
_ROTATION: Final = Bodies(pb.RotateKeyRequest.DESCRIPTOR, pb.RotateKeyResponse.DESCRIPTOR)
_GROUPS: Final = Bodies(answers=pb.ListKeyGroupsResponse.DESCRIPTOR)
_GROUP: Final = Bodies(pb.KeyGroup.DESCRIPTOR, pb.PutKeyGroupResponse.DESCRIPTOR)
_NO_GROUP: Final = Bodies(answers=DeletedGroup)


class KeyAdmin:
    """The endpoints of keys and groups.

    Args:
        operator: asks the registry.
        auth: knows the keys of the settings, which are listed by their names.
    """

    def __init__(self, operator: RegistryOperator, auth: Auth) -> None:
        self._operator = operator
        self._auth = auth

    def routes(self, endpoints: OperatorEndpoints) -> Sequence[Route]:
        """`/admin/keys` and `/admin/groups`."""
        made = functools.partial(endpoints.endpoint, ConsoleLevel.ADMIN)
        key, group = "/admin/keys/{key}", "/admin/groups/{name}"
        return [
            Route("/admin/keys", made(self._list, bodies=_LISTED), methods=["GET"]),
            Route(
                "/admin/keys",
                made(self._create, operation="key.create", bodies=_CREATION),
                methods=["POST"],
            ),
            Route(key, made(self._show, bodies=_SHOWN), methods=["GET"]),
            Route(
                key,
                made(self._revoke, operation="key.revoke", bodies=_REVOKED),
                methods=["DELETE"],
            ),
            Route(
                f"{key}/rotate",
                made(self._rotate, operation="key.rotate", bodies=_ROTATION),
                methods=["POST"],
            ),
            Route("/admin/groups", made(self._list_groups, bodies=_GROUPS), methods=["GET"]),
            Route(
                group,
                made(self._put_group, operation="group.put", bodies=_GROUP),
                methods=["PUT"],
            ),
            Route(
                group,
                made(self._delete_group, operation="group.delete", bodies=_NO_GROUP),
                methods=["DELETE"],
            ),
        ]

    async def _list(self, call: OperatorCall) -> None:
        request = _page(call, pb.ListKeysRequest(), _PAGE_FIELDS)
        told = json_fields(await self._ask(call, "ListKeys", request))
        if not request.page_token:
            told["static"] = [
                {"name": holder.principal, "console": holder.console.word}
                for holder in self._auth.static_holders
            ]
        call.answer(told)

    async def _create(self, call: OperatorCall) -> None:
        request = _read(call, pb.CreateKeyRequest())
        call.target = f"name={request.name}"
        answer = await self._ask(call, "CreateKey", request)
        call.target += f", id={answer.key.id}"
        call.answer(json_fields(answer), status=_CREATED)

    async def _show(self, call: OperatorCall) -> None:
        answer = await self._ask(call, "GetKey", pb.GetKeyRequest(key=call.head.path["key"]))
        call.answer(json_fields(answer))

    async def _rotate(self, call: OperatorCall) -> None:
        request = _read(call, pb.RotateKeyRequest())
        request.key = call.head.path["key"]
        call.target = f"key={request.key}"
        call.answer(json_fields(await self._ask(call, "RotateKey", request)))

    async def _revoke(self, call: OperatorCall) -> None:
        request = pb.RevokeKeyRequest(key=call.head.path["key"])
        call.target = f"key={request.key}"
        call.answer(json_fields(await self._ask(call, "RevokeKey", request)))

    async def _list_groups(self, call: OperatorCall) -> None:
        request = _page(call, pb.ListKeyGroupsRequest(), _PAGE_FIELDS[:2])
        call.answer(json_fields(await self._ask(call, "ListKeyGroups", request)))

    async def _put_group(self, call: OperatorCall) -> None:
        group = _read(call, pb.KeyGroup())
        group.name = call.head.path["name"]
        call.target = f"group={group.name}"
        answer = await self._ask(call, "PutKeyGroup", pb.PutKeyGroupRequest(group=group))
        call.answer(json_fields(answer))

    async def _delete_group(self, call: OperatorCall) -> None:
        request = pb.DeleteKeyGroupRequest(name=call.head.path["name"])
        call.target = f"group={request.name}"
        await self._ask(call, "DeleteKeyGroup", request)
        call.answer({"name": request.name, "deleted": True})

    def _ask(self, call: OperatorCall, method: str, request: Message) -> Awaitable[Any]:
        self._operator.require_operator()
        return self._operator.ask(
            method, request, service=key_grpc.KeyServiceStub, metadata=call.metadata
        )


def _page(call: OperatorCall, request: RequestT, known: Sequence[str]) -> RequestT:
    """Which page is wanted, by the query.

    Raises:
        FleetError: BAD_REQUEST: a parameter that nobody reads, or that cannot be read.
    """
    for name in call.head.query:
        if name not in known:
            raise bad(name, f"It is not read here; {', '.join(known)} are.")
    given: dict[str, Any] = dict(call.head.query)
    if "include_ended" in given:
        given["include_ended"] = given["include_ended"] in {"1", "true"}
    return _parsed(given, request)


def _read(call: OperatorCall, request: RequestT) -> RequestT:
    """The body of a call.

    Raises:
        FleetError: BAD_REQUEST, with the field at fault where one is.
    """
    try:  # not by `json`: it makes text of half a surrogate pair, at which protobuf breaks
        given = msgspec.json.decode(call.body or b"{}", type=dict[str, Any])
    except msgspec.ValidationError as complaint:
        raise complained(complaint) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as broken:
        raise not_json(broken) from None
    return _parsed(given, request)


def _parsed(given: dict[str, Any], request: RequestT) -> RequestT:
    wrong = not_an_object(given, request)
    if wrong is not None:
        raise bad(wrong, "It is a JSON object.")
    try:
        return json_format.ParseDict(given, request)
    except json_format.ParseError as error:
        told = str(error).partition(" Available Fields")[0]
        found = _AT_FAULT.search(told)
        field = next((one for one in found.groups() if one), None) if found else None
        raise FleetError(Reason.BAD_REQUEST, told, field=field) from error

"""What was used, over HTTP: of everybody for who may look at the console, else one's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from starlette.routing import Route

from cortex.v1 import accounting_service_pb2 as pb
from cortex.v1 import accounting_service_pb2_grpc as accounting_grpc
from services.backplane.errors import FleetError, Reason
from services.gateway.api.operators.call import OperatorCall
from services.gateway.api.operators.endpoint import Bodies, OperatorEndpoints
from services.gateway.api.operators.registry_operator import RegistryOperator
from services.gateway.auth.holder import ConsoleLevel
from services.gateway.dialects.common.json_body import bad

_KEYS: Final = {
    "key": pb.USAGE_KEY_PRINCIPAL,
    "model": pb.USAGE_KEY_MODEL,
    "hour": pb.USAGE_KEY_HOUR,
}
_NUMBERS: Final = ("since", "until")
_KNOWN: Final = ("by", *_NUMBERS, "key")


class UsageAdmin:
    """The endpoint of usage.

    Args:
        operator: asks the registry.
    """

    def __init__(self, operator: RegistryOperator) -> None:
        self._operator = operator

    def routes(self, endpoints: OperatorEndpoints) -> Sequence[Route]:
        """`/admin/usage`."""
        bodies = Bodies(answers=pb.GetUsageResponse.DESCRIPTOR)
        made = endpoints.endpoint(ConsoleLevel.NONE, self._usage, bodies=bodies)
        return [Route("/admin/usage", made, methods=["GET"])]

    async def _usage(self, call: OperatorCall) -> None:
        query = call.head.query
        for name in query:
            if name not in _KNOWN:
                raise bad(name, f"It is not read here; {', '.join(_KNOWN)} are.")
        request = pb.GetUsageRequest()
        for name in (query.get("by") or "key").split(","):
            if name not in _KEYS:
                raise bad("by", f"Expected some of {', '.join(_KEYS)}, with commas between them.")
            request.by.append(_KEYS[name])
        for name in _NUMBERS:
            given = query.get(name, "0")
            if not re.fullmatch(r"[0-9]{1,12}", given):
                raise bad(name, "Expected seconds since 1970.")
            setattr(request, f"{name}_unix_seconds", int(given))
        visitor = call.visitor
        if visitor.level < ConsoleLevel.VIEW:
            if query.get("key", visitor.principal) != visitor.principal:
                told = "This key may see its own usage; to see others' it needs a role that looks."
                raise FleetError(Reason.FORBIDDEN, told, field="key")
            request.principal = visitor.principal
        elif "key" in query:
            request.principal = query["key"]
        answer = await self._operator.ask(
            "GetUsage", request, service=accounting_grpc.AccountingServiceStub
        )
        call.answer({"rows": [_row(row) for row in answer.rows]})


def _row(row: pb.UsageRow) -> dict[str, str | int]:
    """A row as JSON, zeros too."""
    names = [field.name for field in row.DESCRIPTOR.fields]
    return {name: getattr(row, name) for name in names}

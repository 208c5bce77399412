"""AccountingService: gateways share limits and tell what was used; operators ask for it."""

from __future__ import annotations

from typing import Any, Final

import grpc

from cortex.v1 import accounting_service_pb2 as pb
from cortex.v1 import accounting_service_pb2_grpc
from services.backplane import protobuf_time
from services.backplane.errors import FleetError, Reason
from services.registry.accounting.allowances import LEASE_SECONDS
from services.registry.accounting.shares import Claim, ShareKey
from services.registry.holder import LeaderHolder
from services.registry.store.ledger import COUNTS, TOLD_BY_GATEWAYS, UsageQuery, UsageRow
from services.registry.store.write_behind import durably
from services.registry.term import LeaderTerm

ACCOUNTING_SERVICE: Final = pb.DESCRIPTOR.services_by_name["AccountingService"].full_name
_MOST_ROWS: Final = 10_000
_MICROSECONDS: Final = 1000  # of a millisecond
# What fits into the store's integers.
_MOST: Final = 2**53
_KEYS: Final = {
    pb.USAGE_KEY_PRINCIPAL: "principal",
    pb.USAGE_KEY_MODEL: "model",
    pb.USAGE_KEY_HOUR: "hour",
}

Context = grpc.aio.ServicerContext[Any, Any]


class AccountingServicer(accounting_service_pb2_grpc.AccountingServiceServicer):
    """Decodes requests, asks the ledgers of the term under way, encodes answers."""

    def __init__(self, holder: LeaderHolder[LeaderTerm]) -> None:
        self._holder = holder

    async def LeaseAllowances(
        self, request: pb.LeaseAllowancesRequest, context: Context
    ) -> pb.LeaseAllowancesResponse:
        """Takes a gateway's claims in."""
        term = self._holder.leading_term()
        _require(request.holder, "holder")
        _bound(len(request.claims), "claims")
        claims = [
            await self._measured(term, _claim(one, f"claims.{index}"))
            for index, one in enumerate(request.claims)
        ]
        response = pb.LeaseAllowancesResponse(lease=protobuf_time.duration(LEASE_SECONDS))
        for grant in await durably(term.allowances.claim(request.holder, claims)):
            response.grants.add(granted=grant.granted, left=grant.left)
        return response

    async def _measured(self, term: LeaderTerm, claim: Claim) -> Claim:
        """A claim with what neurons have measured, where that is what counts."""
        if claim.key.meter != pb.METER_GPU_MILLISECONDS:
            return claim
        key = claim.key
        spent = await durably(term.usage.device_microseconds(key.principal, key.starts_at))
        return claim._replace(measured=spent // _MICROSECONDS)

    async def ReportUsage(
        self, request: pb.ReportUsageRequest, context: Context
    ) -> pb.ReportUsageResponse:
        """Takes a report in, once."""
        term = self._holder.leading_term()
        _require(request.holder, "holder")
        _bound(len(request.rows), "rows")
        if not 0 < request.number <= _MOST:
            raise FleetError(Reason.BAD_REQUEST, "Reports count from 1.", field="number")
        rows = [_row(one, f"rows.{index}") for index, one in enumerate(request.rows)]
        await durably(term.usage.report(request.holder, request.number, rows))
        return pb.ReportUsageResponse()

    async def GetUsage(self, request: pb.GetUsageRequest, context: Context) -> pb.GetUsageResponse:
        """What principals have used."""
        term = self._holder.leading_term()
        by: list[str] = []
        for key in request.by:
            if key not in _KEYS:
                raise FleetError(Reason.BAD_REQUEST, f"Nothing adds up by {key}.", field="by")
            if _KEYS[key] not in by:
                by.append(_KEYS[key])
        for name in ("since_unix_seconds", "until_unix_seconds"):
            if getattr(request, name) > _MOST:
                raise FleetError(Reason.BAD_REQUEST, f"{name} is no time.", field=name)
        query = UsageQuery(
            by,
            request.since_unix_seconds,
            request.until_unix_seconds,
            request.principal if request.HasField("principal") else None,
        )
        rows = await durably(term.usage.table(query))
        return pb.GetUsageResponse(rows=[_message(row) for row in rows])


def _claim(one: pb.AllowanceClaim, field: str) -> Claim:
    if not one.meter or not one.period:
        told = "A claim names meter and period."
        raise FleetError(Reason.BAD_REQUEST, told, field=field)
    numbers = (
        one.window_starts_unix_seconds,
        one.window_ends_unix_seconds,
        one.limit,
        one.used,
        one.reserved,
        one.wanted,
    )
    if max(numbers) > _MOST:
        raise FleetError(Reason.BAD_REQUEST, f"No number is above {_MOST}.", field=field)
    starts_at, ends_at, limit, used, reserved, wanted = numbers
    key = ShareKey(one.principal, one.meter, one.period, starts_at, ends_at)
    return Claim(key, limit, used, reserved, wanted)


def _row(one: pb.UsageRow, field: str) -> UsageRow:
    counts = {name: int(getattr(one, name)) for name in TOLD_BY_GATEWAYS}
    if max(one.hour_unix_seconds, *counts.values()) > _MOST:
        raise FleetError(Reason.BAD_REQUEST, f"No number is above {_MOST}.", field=field)
    return UsageRow(one.hour_unix_seconds, one.principal, one.model, **counts)


def _message(row: UsageRow) -> pb.UsageRow:
    made = pb.UsageRow(hour_unix_seconds=row.hour, principal=row.principal, model=row.model)
    for name in COUNTS:
        setattr(made, name, getattr(row, name))
    return made


def _require(value: str, field: str) -> None:
    if not value:
        raise FleetError(Reason.BAD_REQUEST, f"{field} is missing.", field=field)


def _bound(count: int, field: str) -> None:
    if count > _MOST_ROWS:
        told = f"{count} {field} are more than {_MOST_ROWS}."
        raise FleetError(Reason.BAD_REQUEST, told, field=field)

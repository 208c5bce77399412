"""A registry's shares of limits in this process: the real rules, without a store or a socket."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from cortex.v1 import accounting_service_pb2 as pb
from services.backplane import protobuf_time
from services.backplane.errors import FleetError, Reason
from services.registry.accounting.shares import Claim, ShareKey, Shares

LEASE_SECONDS = 10.0


class StandInLessor:
    """Leases as the registry does; is away where `is_away` says so.

    Attributes:
        asked: all requests.
        measured_milliseconds: what neurons have told of the devices' time.
        reported: rows of usage by holder and number of the report.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self.shares = Shares()
        self.asked: list[pb.LeaseAllowancesRequest] = []
        self.is_away = False
        self.measured_milliseconds = 0
        self.reported: dict[tuple[str, int], Sequence[pb.UsageRow]] = {}

    async def report(self, request: pb.ReportUsageRequest) -> pb.ReportUsageResponse:
        """Keeps a report, the same one once."""
        if self.is_away:
            raise FleetError(Reason.REGISTRY_UNAVAILABLE, "It is away.")
        self.reported.setdefault((request.holder, request.number), list(request.rows))
        return pb.ReportUsageResponse()

    async def lease(self, request: pb.LeaseAllowancesRequest) -> pb.LeaseAllowancesResponse:
        """The grants of one request."""
        if self.is_away:
            raise FleetError(Reason.REGISTRY_UNAVAILABLE, "It is away.")
        self.asked.append(request)
        response = pb.LeaseAllowancesResponse(lease=protobuf_time.duration(LEASE_SECONDS))
        for one in request.claims:
            starts, ends = one.window_starts_unix_seconds, one.window_ends_unix_seconds
            key = ShareKey(one.principal, one.meter, one.period, starts, ends)
            measured = self.measured_milliseconds * (one.meter == pb.METER_GPU_MILLISECONDS)
            claim = Claim(key, one.limit, one.used, one.reserved, one.wanted, measured)
            grant, _ = self.shares.claim(
                request.holder, claim, now=self._clock(), lease_seconds=LEASE_SECONDS
            )
            response.grants.add(granted=grant.granted, left=grant.left)
        return response

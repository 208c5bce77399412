"""Calls to the registry: watch the fleet, have a model placed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Final

import structlog

from cortex.v1 import accounting_service_pb2 as accounting
from cortex.v1 import accounting_service_pb2_grpc as accounting_grpc
from cortex.v1 import registry_service_pb2 as registry
from cortex.v1 import registry_service_pb2_grpc as registry_grpc
from services.backplane.backoff import delays
from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.backplane.rpc.calls import streaming, unary
from services.backplane.rpc.channels import ChannelPool
from services.backplane.security.roles import Role
from services.backplane.timeouts import timeout
from services.gateway.routing.fleet_view import FleetView

_REPORT_SECONDS: Final = 5.0
# How long the registry may be away while a placement waits for it: a restart takes less, and so
# does the take-over by a stand-by.
REGISTRY_OUTAGE_SECONDS: Final = 10.0
# The same for a client who would see his answer end, and cannot ask again as others can: a service
# manager may try several times, and a machine may start anew.
_COMMITTED_OUTAGE_SECONDS: Final = 60.0

log = structlog.get_logger()


class RegistryClient:
    """Calls one registry of the list; the next one after the current has failed."""

    def __init__(self, channels: ChannelPool, addresses: Sequence[str]) -> None:
        self._channels = channels
        self._addresses = tuple(addresses)
        self._current = 0

    @property
    def address(self) -> str:
        """Address of the registry that is called now."""
        return self._addresses[self._current]

    def candidates(self) -> list[str]:
        """All addresses, the current one first."""
        return [*self._addresses[self._current :], *self._addresses[: self._current]]

    def turn_to_next(self) -> None:
        """Calls the next address from now on: the current one is away, or does not lead."""
        self._current = (self._current + 1) % len(self._addresses)

    async def watch(self, view: FleetView) -> None:
        """Applies one stream of changes to the view until the stream ends.

        Raises:
            FleetError: why it ended: REGISTRY_UNAVAILABLE for a lost connection or for silence.
        """
        request = registry.WatchFleetRequest()
        if view.revision is not None:
            request.after_revision = view.revision
            request.registry_incarnation_id = view.registry_incarnation_id
        async with streaming(
            self._stub.WatchFleet(request), unavailable=Reason.REGISTRY_UNAVAILABLE
        ) as changes:
            async for change in changes:
                view.apply(change)
        raise FleetError(Reason.REGISTRY_UNAVAILABLE, "The registry ended the watch.")

    async def ensure(
        self,
        request: registry.EnsureModelRequest,
        *,
        metadata: Sequence[tuple[str, str]] | None = None,
    ) -> AsyncIterator[registry.EnsureModelResponse]:
        """The steps of one placement.

        Args:
            request: which model.
            metadata: of the call: the trace that it is part of.

        Raises:
            FleetError: it failed, or the registry was lost (REGISTRY_UNAVAILABLE).
        """
        async with streaming(
            self._stub.EnsureModel(request, metadata=metadata),
            unavailable=Reason.REGISTRY_UNAVAILABLE,
        ) as steps:
            async for step in steps:
                yield step

    async def lease(
        self, request: accounting.LeaseAllowancesRequest
    ) -> accounting.LeaseAllowancesResponse:
        """Claims shares of limits.

        Raises:
            FleetError: they were not granted; REGISTRY_UNAVAILABLE where nobody answers.
        """
        return await unary(
            self._accounting.LeaseAllowances(request), unavailable=Reason.REGISTRY_UNAVAILABLE
        )

    async def report_usage(self, request: accounting.ReportUsageRequest) -> None:
        """Tells what was used; returns when it is written.

        Raises:
            FleetError: it may have been written or not; REGISTRY_UNAVAILABLE where nobody answers.
        """
        async with timeout(_REPORT_SECONDS):
            await unary(
                self._accounting.ReportUsage(request), unavailable=Reason.REGISTRY_UNAVAILABLE
            )

    @property
    def _accounting(self) -> accounting_grpc.AccountingServiceAsyncStub:
        return accounting_grpc.AccountingServiceStub(
            self._channels.get(self.address, role=Role.REGISTRY)
        )

    @property
    def _stub(self) -> registry_grpc.RegistryServiceAsyncStub:
        return registry_grpc.RegistryServiceStub(
            self._channels.get(self.address, role=Role.REGISTRY)
        )


class OutageTimer:
    """How long the registry may go on being away; any answer starts the time again."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """The registry has answered: starts the time again."""
        self._began_at = time.monotonic()
        self._pauses = delays(first=0.1, cap=1.0)

    @property
    def left(self) -> float:
        """Seconds until it is over; never negative."""
        return max(0.0, self._began_at + REGISTRY_OUTAGE_SECONDS - time.monotonic())

    @property
    def is_over(self) -> bool:
        """True once it has been away for `REGISTRY_OUTAGE_SECONDS`."""
        return not self.has_left(committed=False)

    def has_left(self, *, committed: bool) -> bool:
        """True while it is to be asked again; for longer where the client has a head already."""
        most = _COMMITTED_OUTAGE_SECONDS if committed else REGISTRY_OUTAGE_SECONDS
        return time.monotonic() <= self._began_at + most

    def pause(self) -> float:
        """Seconds until it is asked again."""
        return next(self._pauses)


async def keep_watching(client: RegistryClient, view: FleetView, faults: Faults) -> None:
    """Watches the fleet until cancelled; while no registry answers, the view stays as it was.

    A change that cannot be applied is a fault: the fleet counts as unknown until a whole snapshot
    has been.
    """
    pauses = delays(first=0.05, cap=1.0)
    is_away = False
    while True:
        before = view.revision
        try:
            await client.watch(view)
        except FleetError as error:
            if view.revision != before or not is_away:
                log.warning(
                    "registry.lost",
                    address=client.address,
                    reason=error.reason.value,
                    detail=error.message,
                    revision=view.revision,
                )
        except Exception as error:  # noqa: BLE001 - the root of a task that everybody needs
            faults.note("fleet-watch", error)
            view.distrust()
        is_away = True
        view.is_followed = False
        if view.revision != before:
            pauses = delays(first=0.05, cap=1.0)
        client.turn_to_next()
        await asyncio.sleep(next(pauses))

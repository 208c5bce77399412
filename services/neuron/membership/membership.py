"""Keeps this neuron in a registry: hello, reports, and a farewell.

The open stream is the membership. A registry that goes away disturbs nothing here: the neuron
serves on and attaches again, there or at another of the listed ones.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any, Final

import structlog

from cortex.v1 import registry_service_pb2 as registry
from cortex.v1.registry_service_pb2_grpc import RegistryServiceStub
from services.backplane import backoff, protobuf_time
from services.backplane.changes import Changes
from services.backplane.errors import FleetError, Reason
from services.backplane.first_ended import first_ended
from services.backplane.process.faults import Faults
from services.backplane.rpc.calls import streaming
from services.backplane.rpc.channels import open_channel
from services.backplane.security.credentials import FleetCredentials
from services.backplane.timeouts import timeout
from services.neuron.leader_epoch import LeaderEpoch
from services.neuron.membership.renewal import keep_renewed
from services.neuron.membership.report import StatusBoard

_REPORT_SECONDS: Final = 2.0
# Changes within this long travel in one report.
_SETTLE_SECONDS: Final = 0.1
_HELLO_SECONDS: Final = 5.0
# A registry that has just started waits 5 seconds for its neurons (`settle_seconds`).
_LONGEST_PAUSE_SECONDS: Final = 2.0
_FAREWELL_SECONDS: Final = 2.0

log = structlog.get_logger()


class Membership:
    """Keeps this neuron attached to a registry, and sends its reports."""

    def __init__(
        self,
        *,
        registries: Sequence[str],
        board: StatusBoard,
        changes: Changes,
        leader_epoch: LeaderEpoch,
        faults: Faults,
        credentials: FleetCredentials | None = None,
    ) -> None:
        """Attaches nowhere yet.

        Args:
            registries: host:port, in order of preference; empty waits to be dialled.
            board: makes the reports.
            changes: bumped whenever a report would differ.
            leader_epoch: which registry is obeyed.
            faults: told of exceptions.
            credentials: what it attaches with; None: plain text.
        """
        self._credentials = credentials
        self._faults = faults
        self._registries = tuple(registries)
        self._board = board
        self._changes = changes
        self._leader_epoch = leader_epoch
        self._leader = ""
        self._leaving = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self.is_attached = False

    def start(self) -> None:
        """Attaches, and attaches again whenever the stream ends, until `leave`."""
        if self._registries:
            self._task = self._faults.vital(self._live(), name="membership", may_end=True)
            if self._credentials is not None and self._credentials.settings.renew:
                renewing = keep_renewed(self._credentials, self._registries, self._faults)
                self._renewing = self._faults.vital(renewing, name="renewal")

    async def leave(self) -> None:
        """Says farewell and stops attaching."""
        self._leaving.set()
        if self._renewing is not None:
            self._renewing.cancel()
        if self._task is None:
            return
        await asyncio.wait({self._task}, timeout=_FAREWELL_SECONDS)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _live(self) -> None:
        pauses, turn = backoff.delays(first=0.2, cap=_LONGEST_PAUSE_SECONDS), 0
        while not self._leaving.is_set():
            address = self._leader or self._registries[turn % len(self._registries)]
            self._leader = ""
            turn += 1
            try:
                await self._attach(address)
            except FleetError as error:
                log.info("registry.detached", address=address, reason=error.message)
            except Exception as error:  # noqa: BLE001 - the next attempt may do better
                self._faults.note("membership", error)
            if self.is_attached:
                self.is_attached = False
                pauses, turn = backoff.delays(first=0.2, cap=_LONGEST_PAUSE_SECONDS), 0
            if not self._leader:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._leaving.wait(), next(pauses))

    async def _attach(self, address: str) -> None:
        """One membership, from hello to its end.

        Raises:
            FleetError: the registry went away or refused.
        """
        reports = _Reports(self._board, self._changes, self._leaving)
        channel = open_channel(address, self._credentials)
        try:
            stub = RegistryServiceStub(channel)
            call: Any = stub.Attach(self._told(reports.stream()))
            async with streaming(call, unavailable=Reason.REGISTRY_UNAVAILABLE) as answers:
                await self._listen(address, answers, reports)
        finally:
            await channel.close()

    async def _told(
        self, requests: AsyncGenerator[registry.AttachRequest]
    ) -> AsyncGenerator[registry.AttachRequest]:
        """The requests; gRPC would say nothing of an exception among them, only end the call."""
        with self._faults.contained("membership.report"):
            async for request in requests:
                yield request

    async def _listen(
        self, address: str, answers: AsyncIterator[registry.AttachResponse], reports: _Reports
    ) -> None:
        try:
            async with timeout(_HELLO_SECONDS) as limit:
                async for answer in answers:
                    limit.reschedule(None)
                    if answer.leader_address and answer.leader_address != address:
                        self._leader = answer.leader_address
                        return
                    self._leader_epoch.admit(answer.leader_epoch)
                    if self._credentials is not None and answer.HasField("revoked"):
                        self._credentials.refuse(answer.revoked.serials)
                    if answer.HasField("lease"):
                        reports.set_lease(protobuf_time.seconds(answer.lease))
                    if not self.is_attached:
                        self.is_attached = True
                        log.info("registry.attached", address=address)
        except TimeoutError as error:
            raise FleetError(
                Reason.REGISTRY_UNAVAILABLE, "The registry does not answer."
            ) from error


class _Reports:
    """What one membership sends."""

    def __init__(self, board: StatusBoard, changes: Changes, leaving: asyncio.Event) -> None:
        self._board = board
        self._changes = changes
        self._leaving = leaving
        self._seconds = _REPORT_SECONDS

    def set_lease(self, seconds: float) -> None:
        """Reports come at least three times within a lease."""
        self._seconds = min(_REPORT_SECONDS, seconds / 3)

    async def stream(self) -> AsyncGenerator[registry.AttachRequest]:
        """Hello, then reports at every change and before the lease ends, then the farewell."""
        yield registry.AttachRequest(hello=self._board.identity)
        report = self._board.reports()
        while not self._leaving.is_set():
            version = self._changes.version
            yield registry.AttachRequest(report=report())
            await self._until_news(version)
        yield registry.AttachRequest(report=report())
        yield registry.AttachRequest(farewell=registry.NeuronFarewell())

    async def _until_news(self, version: int) -> None:
        news, leaving = self._changes.after(version), self._leaving.wait()
        ended = await first_ended(news, leaving, seconds=self._seconds)
        if ended and not self._leaving.is_set():
            await first_ended(self._leaving.wait(), seconds=_SETTLE_SECONDS)

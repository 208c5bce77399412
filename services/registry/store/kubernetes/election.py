"""Which of several registries leads: one Lease, by the rules in `lease.py`."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from services.registry.store.kubernetes.address import KubernetesAddress
from services.registry.store.kubernetes.api_server import (
    CALL_SECONDS,
    ApiServer,
    Body,
    ConflictError,
    metadata_of,
)
from services.registry.store.kubernetes.lease import (
    LeaseRecord,
    LeaseWatch,
    body_of,
    record_of,
    released,
    renewed,
)
from services.registry.store.leader_lease import LeaderLease

# Shares of the lease: how often those look that stand by, and how long a call may take.
_LOOK_SHARE: Final = 0.1
_MOST_LOOK_SECONDS: Final = 1.0
_CALL_SHARE: Final = 0.5
# Others write the Lease too: people, who annotate it.
_MOST_CONFLICTS: Final = 5


class KubernetesLeadership:
    """One registry's part in the election.

    Args:
        api: of the cluster.
        address: of the store.
        identity: this registry's, of which there is no second one.
        lease_seconds: how long a leader that is not heard of goes on leading.
    """

    def __init__(
        self, api: ApiServer, address: KubernetesAddress, *, identity: str, lease_seconds: float
    ) -> None:
        self._api = api
        self._address = address
        self._identity = identity
        self._lease_seconds = lease_seconds
        self._watch = LeaseWatch(identity, lease_seconds)
        self._metadata: Body = {}
        self._held: LeaseRecord | None = None
        self._look_at = 0.0

    @property
    def epoch(self) -> int | None:
        """The epoch in which this registry leads, as far as it knows; None where it does not."""
        return None if self._held is None else self._held.epoch

    async def look(self) -> None:
        """Reads the Lease.

        Raises:
            StoreError: it cannot be read.
        """
        await self._read()

    async def take(self, address: str, *, least_epoch: int = 0) -> LeaderLease | None:
        """Takes the leadership if nobody has it; asked again at once, it waits before it looks.

        Args:
            address: where this registry is reached.
            least_epoch: the epoch is no less.

        Raises:
            StoreError: the API server cannot be asked.
        """
        self._held = None
        await asyncio.sleep(max(0.0, self._look_at - time.monotonic()))
        pause = min(_MOST_LOOK_SECONDS, _LOOK_SHARE * self._lease_seconds)
        self._look_at = time.monotonic() + pause
        await self._read()
        began = time.monotonic()
        if not self._watch.may_take(began):
            return None
        record = self._watch.taken(address, clock=time.time(), least_epoch=least_epoch)
        try:
            await self._write(record)
        except ConflictError:
            return None  # another one has taken it
        self._held = record
        return LeaderLease(record.epoch, began + self._lease_seconds)

    async def renew(self) -> LeaderLease | None:
        """Prolongs the leadership; None if it is lost.

        Raises:
            StoreError: the API server cannot be asked.
        """
        began = time.monotonic()
        if await self._rewritten() is None:
            self._held = None
            return None
        return LeaderLease(self.epoch or 0, began + self._lease_seconds)

    async def leader(self) -> str:
        """The address of who leads; empty where nobody does.

        Raises:
            StoreError: the API server cannot be asked.
        """
        if time.monotonic() >= self._look_at:
            await self.look()
        return self._watch.record.address if self._watch.record else ""

    async def resign(self) -> None:
        """Gives the leadership up, so that the next one takes it at once.

        Raises:
            StoreError: the API server cannot be asked: the next one waits until the lease is over.
        """
        try:
            await self._rewritten(gives_up=True)
        finally:
            self._held = None

    async def _rewritten(self, *, gives_up: bool = False) -> LeaseRecord | None:
        """Writes the Lease that this registry holds anew; None where it holds it no more."""
        for _ in range(_MOST_CONFLICTS):
            held = self._held
            if held is None:
                return None
            fresh = (released if gives_up else renewed)(held, time.time())
            try:
                await self._write(fresh)
            except ConflictError:
                if not await self._still_holds(held):
                    return None
                continue
            if self._held is held:  # not resigned meanwhile
                self._held = fresh
            return fresh
        return None

    async def _still_holds(self, held: LeaseRecord) -> bool:
        """Reads the Lease behind a write that others, or a lost answer, have been before."""
        record = await self._read()
        return record is not None and (record.holder, record.epoch) == (held.holder, held.epoch)

    async def _read(self) -> LeaseRecord | None:
        """The Lease as it is; None where there is none: then the one seen last goes on in time."""
        found = await self._api.get(self._path(self._address.name), seconds=self._seconds)
        if found is None:
            self._metadata = {}
            return None
        record = record_of(found)
        self._metadata = metadata_of(found)
        self._watch.see(record, time.monotonic())
        return record

    async def _write(self, record: LeaseRecord) -> None:
        """Writes the Lease in the place of the version that was read.

        Raises:
            ConflictError: it is another version now, or there is none any more.
        """
        if self._metadata:
            body = body_of(record, self._metadata)
            path = self._path(self._address.name)
            written = await self._api.replace(path, body, seconds=self._seconds)
            if written is None:
                raise ConflictError("Kubernetes: the Lease was removed.")
        else:
            names = {"name": self._address.name, "namespace": self._address.namespace}
            body = body_of(record, names)
            written = await self._api.create(self._path(), body, seconds=self._seconds)
        self._metadata = metadata_of(written)
        self._watch.see(record, time.monotonic())

    @property
    def _seconds(self) -> float:
        return min(CALL_SECONDS, _CALL_SHARE * self._lease_seconds)

    def _path(self, name: str = "") -> str:
        base = f"/apis/coordination.k8s.io/v1/namespaces/{self._address.namespace}/leases"
        return f"{base}/{name}" if name else base

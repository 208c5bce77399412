"""The store of several registries in a Kubernetes cluster: objects in place of a database."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

from typing_extensions import override

from services.backplane.address import own_host_name
from services.registry.store.kubernetes.address import KubernetesAddress
from services.registry.store.kubernetes.api_server import ApiServer
from services.registry.store.kubernetes.claimed import ClaimedDocument, DeposedError
from services.registry.store.kubernetes.election import KubernetesLeadership
from services.registry.store.kubernetes.facts import KubernetesFacts, read_facts
from services.registry.store.kubernetes.ledger import KubernetesLedger, LedgerDocuments
from services.registry.store.leader_lease import LeaderLease
from services.registry.store.store import FactKind, Facts, Store, StoreError

_AT_ONCE: Final = 4
_CLAIM_SECONDS: Final = 30.0
# Share of the lease after which it is renewed while objects are claimed.
_RENEW_SHARE: Final = 0.2
# How often a registry whose clock is behind takes the Lease with a higher epoch.
_MOST_CLAIMS: Final = 3


class _Records:
    """All objects, under the epoch of one leader."""

    def __init__(self, api: ApiServer, address: KubernetesAddress, epoch: int) -> None:
        self.facts = KubernetesFacts(api, address, epoch)
        self.ledger = LedgerDocuments(api, address, epoch)

    @property
    def documents(self) -> list[ClaimedDocument[Any]]:
        return [*self.facts.documents, *self.ledger.documents]


class KubernetesStore(Store):
    """Keeps facts and the ledger in Secrets and ConfigMaps, and elects the leader by a Lease.

    Args:
        address: of the objects.
        lease_seconds: how long a leader that is not heard of goes on leading.
    """

    def __init__(self, address: KubernetesAddress, *, lease_seconds: float) -> None:
        self._address = address
        self._lease_seconds = lease_seconds
        self._api = ApiServer(address)
        self._leadership = KubernetesLeadership(
            self._api,
            address,
            identity=f"{own_host_name()}_{uuid.uuid4().hex}",
            lease_seconds=lease_seconds,
        )
        self._records: _Records | None = None
        self._ledger = KubernetesLedger(lambda: self._leading().ledger)

    @property
    @override
    def ledger(self) -> KubernetesLedger:
        return self._ledger

    @override
    async def open(self) -> None:
        """Asks for the Lease, so that what keeps this registry out is said at its start."""
        await self._leadership.look()

    @override
    async def load(self) -> Facts:
        if self._records is not None:
            return self._records.facts.load()
        return await read_facts(self._api, self._address)

    @override
    async def put(self, kind: FactKind, key: str, value: str) -> None:
        await self._leading().facts.put(kind, key, value)

    @override
    async def delete(self, kind: FactKind, key: str) -> None:
        await self._leading().facts.delete(kind, key)

    @override
    async def try_lead(self, address: str) -> LeaderLease | None:
        least_epoch = 0
        for _ in range(_MOST_CLAIMS):
            leader_lease = await self._leadership.take(address, least_epoch=least_epoch)
            if leader_lease is None:
                return None
            try:
                return await self._claimed(leader_lease.epoch)
            except DeposedError as error:
                # this host's clock is behind, and the Lease was made anew: once more, above that
                least_epoch = error.epoch + 1
            except BaseException:
                await self.resign()
                raise
        await self.resign()
        return None

    @override
    async def renew(self) -> LeaderLease | None:
        leader_lease = await self._leadership.renew()
        if leader_lease is None:
            await self._drop()
        return leader_lease

    @override
    async def leader(self) -> str:
        return await self._leadership.leader()

    @override
    async def resign(self) -> None:
        await self._drop()
        await self._leadership.resign()

    @override
    async def close(self) -> None:
        await self._drop()
        await self._api.close()

    async def _claimed(self, epoch: int) -> LeaderLease | None:
        """Claims all objects, and holds the Lease meanwhile; None where it is lost.

        Raises:
            DeposedError: a leader of a newer epoch has claimed one.
            StoreError: they cannot be claimed.
        """
        ends_at = time.monotonic() + _CLAIM_SECONDS
        claiming = asyncio.create_task(self._claim(epoch))
        try:
            while True:
                await asyncio.wait([claiming], timeout=_RENEW_SHARE * self._lease_seconds)
                if claiming.done():
                    claiming.result()
                    return await self.renew()  # all of its time is before those who lead
                if time.monotonic() >= ends_at:
                    raise StoreError("Kubernetes: the records cannot be claimed in time.")
                if await self._leadership.renew() is None:
                    return None
        finally:
            claiming.cancel()
            await asyncio.gather(claiming, return_exceptions=True)

    async def _claim(self, epoch: int) -> None:
        records = _Records(self._api, self._address, epoch)
        await _all(document.claim for document in records.documents)
        self._records = records

    async def _drop(self) -> None:
        records, self._records = self._records, None
        for document in records.documents if records else ():
            await document.close()

    def _leading(self) -> _Records:
        if self._records is None:
            raise StoreError("This registry does not lead.")
        return self._records


async def _all(works: Iterable[Callable[[], Awaitable[None]]]) -> None:
    """Does all works, a few at once; the first that fails ends the others."""
    places = asyncio.Semaphore(_AT_ONCE)

    async def one(work: Callable[[], Awaitable[None]]) -> None:
        async with places:
            await work()

    tasks = [asyncio.ensure_future(one(work)) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

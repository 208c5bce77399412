"""Where the leader is chosen: one registry leads, the others stand by and take over."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final

import structlog

from services.backplane.address import Address, own_host_name
from services.backplane.process.faults import Faults
from services.backplane.process.lifecycle import Shutdown
from services.backplane.security.credentials import FleetCredentials
from services.backplane.settings import SettingsError
from services.backplane.timeouts import timeout
from services.registry.catalogue import catalogue as catalogues
from services.registry.catalogue.catalogue import Catalogue
from services.registry.holder import LeaderHolder
from services.registry.metrics import RegistryMetrics
from services.registry.settings import Settings
from services.registry.store.health import StoreHealth
from services.registry.store.leader_lease import LeaderLease
from services.registry.store.store import Store, StoreError
from services.registry.store.write_behind import FactWriter
from services.registry.term import LeaderTerm

# How soon a standby notices that nobody leads.
_CAMPAIGN_SECONDS: Final = 0.25
# Shares of the lease: how often it is renewed, and how long one attempt may take. Together they
# are less than the whole, so that a leader that the database does not answer ends in time.
_RENEW_SHARE: Final = 0.2
_ATTEMPT_SHARE: Final = 0.6

log = structlog.get_logger()


@dataclasses.dataclass(kw_only=True, slots=True)
class Election:
    """One registry's part in choosing the leader.

    Attributes:
        settings: of this registry.
        catalogue: used where the file cannot be read when a term begins.
        store: grants the leadership to one registry at a time.
        holder: is told whether this registry leads.
        metrics: count across terms.
        faults: what nobody foresaw.
        shutdown: ends it.
        address: where neurons and gateways reach this registry.
        credentials: what neurons are dialled with; None: plain text.
        on_decided: called once, as soon as it is known whether this registry leads.
    """

    settings: Settings
    catalogue: Catalogue
    store: Store
    holder: LeaderHolder[LeaderTerm]
    metrics: RegistryMetrics
    faults: Faults
    shutdown: Shutdown
    address: str
    credentials: FleetCredentials | None = None
    on_decided: Callable[[], None] | None = None
    _health: StoreHealth = dataclasses.field(default_factory=StoreHealth, init=False)

    async def run(self) -> None:
        """Leads whenever it may, until shutdown.

        1. Whoever gets the lease from the store leads; the others ask again every 0.25 seconds.
        2. The leader renews its lease five times within the lease's time. Once a renewal fails or
           takes too long it stops leading, even if nobody else leads yet.
        3. At shutdown the leader gives its lease back, so that another one leads at once.
        """
        self.metrics.observe_election(
            leads=lambda: self.holder.term is not None,
            store_is_well=lambda: self._health.is_well,
        )
        while not self.shutdown.requested:
            try:
                leader_lease = await self.store.try_lead(self.address)
                if leader_lease is not None:
                    await self._lead(leader_lease)
                else:
                    self._take(None, await self.store.leader())
                    self._health.worked()
            except StoreError as error:
                self._take(None)
                self._health.failed(str(error))
            await self._shutdown_within(_CAMPAIGN_SECONDS)
        self._take(None)

    def _take(self, term: LeaderTerm | None, leader_address: str = "") -> None:
        self.holder.take(term, leader_address)
        if term is None:
            self.metrics.stand_by()
        if self.on_decided is not None:
            decided, self.on_decided = self.on_decided, None
            decided()

    async def _lead(self, leader_lease: LeaderLease) -> None:
        self.catalogue = _newest(self.settings, self.catalogue)
        fact_writer = FactWriter(self.store, self.faults)
        try:
            facts = await fact_writer.load()
            self._health.worked()
            term = LeaderTerm(
                settings=self.settings,
                catalogue=self.catalogue,
                facts=facts,
                fact_writer=fact_writer,
                metrics=self.metrics,
                faults=self.faults,
                leader_lease=leader_lease,
                credentials=self.credentials,
            )
            log.info(
                "leadership.taken",
                address=self.address,
                incarnation_id=term.incarnation_id,
                epoch=leader_lease.epoch,
            )
            async with term.running():
                self._take(term, self.address)
                try:
                    await self._renew_while_it_lasts(term)
                finally:
                    # before anything is waited for: nobody may begin what nobody ends
                    self._take(None)
        finally:
            self._take(None)
            await self._resign()

    async def _renew_while_it_lasts(self, term: LeaderTerm) -> None:
        seconds = self.settings.registry.leader_lease_seconds
        while not await self._shutdown_within(_RENEW_SHARE * seconds):
            leader_lease = await self._renewed(_ATTEMPT_SHARE * seconds)
            if leader_lease is None:
                log.warning("leadership.lost", epoch=term.leader_lease.epoch)
                return
            term.renew(leader_lease)

    async def _renewed(self, seconds: float) -> LeaderLease | None:
        try:
            async with timeout(seconds):
                leader_lease = await self.store.renew()
        except (StoreError, TimeoutError) as error:
            self._health.failed(str(error) or "The database does not answer.")
            return None
        self._health.worked()
        return leader_lease

    async def _resign(self) -> None:
        try:
            await self.store.resign()
        except StoreError as error:
            self._health.failed(str(error))

    async def _shutdown_within(self, seconds: float) -> bool:
        try:
            async with timeout(seconds):
                await self.shutdown.wait()
        except TimeoutError:
            return False
        return True


def own_address(settings: Settings, address: Address) -> str:
    """What neurons and gateways are told: the setting, or the served port on this host's name."""
    return settings.registry.address or str(address.dialled_as(own_host_name()))


def _newest(settings: Settings, last: Catalogue) -> Catalogue:
    """The catalogue as it is now; one with an error does not keep a standby from taking over."""
    path = settings.models_path
    if path is None:
        return last
    try:
        return catalogues.load(path)
    except SettingsError as error:
        log.warning("catalogue.refused", detail=f"{error}. The last good one is used.")
        return last

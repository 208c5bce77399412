"""One registry leads, the others stand by and take over."""

from __future__ import annotations

from typing import Final

import structlog

from services.backplane.address import Address, own_host_name
from services.backplane.lifecycle import Shutdown
from services.backplane.settings import SettingsError
from services.backplane.timeouts import timeout
from services.registry.catalogue import catalogue as catalogues
from services.registry.catalogue.catalogue import Catalogue
from services.registry.metrics import RegistryMetrics
from services.registry.settings import Settings
from services.registry.store.leader_lease import LeaderLease
from services.registry.store.store import Store, StoreError
from services.registry.store.write_behind import FactWriter
from services.registry.term import LeaderHolder, LeaderTerm

# How soon a standby notices that nobody leads.
_CAMPAIGN_SECONDS: Final = 0.25
# Shares of the lease: how often it is renewed, and how long one attempt may take. Together they
# are less than the whole, so that a leader that the database does not answer ends in time.
_RENEW_SHARE: Final = 0.2
_ATTEMPT_SHARE: Final = 0.6

log = structlog.get_logger()


async def run_election(
    settings: Settings,
    catalogue: Catalogue,
    store: Store,
    holder: LeaderHolder,
    metrics: RegistryMetrics,
    shutdown: Shutdown,
    address: Address,
) -> None:
    """Leads whenever it may, until shutdown."""
    own = settings.registry.address or str(address.dialled_as(own_host_name()))
    while not shutdown.requested:
        try:
            leader_lease = await store.try_lead(own)
            if leader_lease is not None:
                catalogue = _newest(settings, catalogue)
                await _one_term(
                    settings, catalogue, store, holder, metrics, shutdown, own, leader_lease
                )
            else:
                holder.take(None, await store.leader())
        except StoreError as error:
            holder.take(None)
            log.warning("store.failed", detail=str(error))
        await _asked_to_end(shutdown, _CAMPAIGN_SECONDS)
    holder.take(None)


async def _one_term(
    settings: Settings,
    catalogue: Catalogue,
    store: Store,
    holder: LeaderHolder,
    metrics: RegistryMetrics,
    shutdown: Shutdown,
    own: str,
    leader_lease: LeaderLease,
) -> None:
    fact_writer = FactWriter(store)
    try:
        term = LeaderTerm(
            settings, catalogue, await fact_writer.load(), fact_writer, metrics, leader_lease
        )
        log.info(
            "leadership.taken",
            address=own,
            incarnation_id=term.incarnation_id,
            epoch=leader_lease.epoch,
        )
        async with term.running():
            holder.take(term, own)
            try:
                await _while_it_leads(store, term, shutdown, settings.registry.leader_lease_seconds)
            finally:
                holder.take(
                    None
                )  # before anything is waited for: nobody may begin what nobody ends
    finally:
        holder.take(None)
        await _resign(store)


async def _while_it_leads(
    store: Store, term: LeaderTerm, shutdown: Shutdown, lease_seconds: float
) -> None:
    while not await _asked_to_end(shutdown, _RENEW_SHARE * lease_seconds):
        leader_lease = await _renewed(store, _ATTEMPT_SHARE * lease_seconds)
        if leader_lease is None:
            log.warning("leadership.lost", epoch=term.leader_lease.epoch)
            return
        term.renew(leader_lease)


async def _renewed(store: Store, seconds: float) -> LeaderLease | None:
    try:
        async with timeout(seconds):
            return await store.renew()
    except (StoreError, TimeoutError) as error:
        log.warning("store.failed", detail=str(error) or "The database does not answer.")
        return None


async def _resign(store: Store) -> None:
    try:
        await store.resign()
    except StoreError as error:
        log.warning("store.failed", detail=str(error))


async def _asked_to_end(shutdown: Shutdown, seconds: float) -> bool:
    try:
        async with timeout(seconds):
            await shutdown.wait()
    except TimeoutError:
        return False
    return True


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

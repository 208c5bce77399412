"""One registry leads, the others stand by and take over."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from services.backplane.address import Address, own_host_name
from services.backplane.lifecycle import Shutdown
from services.backplane.settings import SettingsError
from services.registry import catalogue as catalogues
from services.registry.catalogue import Catalogue
from services.registry.gauges import Gauges
from services.registry.ledger import Ledger
from services.registry.seat import Seat
from services.registry.settings import Settings
from services.registry.store import Store, StoreError
from services.registry.term import Term

# How soon a standby notices that nobody leads.
_CAMPAIGN_SECONDS: Final = 0.25
# How soon a leader notices that it lost the lock. The database frees it when the connection dies.
_CHECK_SECONDS: Final = 1.0
_CHECK_TIMEOUT_SECONDS: Final = 3.0

log = structlog.get_logger()


async def lead(
    settings: Settings,
    catalogue: Catalogue,
    store: Store,
    seat: Seat,
    gauges: Gauges,
    shutdown: Shutdown,
    address: Address,
) -> None:
    """Leads whenever it may, until shutdown."""
    own = settings.registry.address or str(address.dialled_as(own_host_name()))
    while not shutdown.requested:
        try:
            if await store.try_lead(own):
                catalogue = _newest(settings, catalogue)
                await _one_term(settings, catalogue, store, seat, gauges, shutdown, own)
            else:
                seat.take(None, await store.leader())
        except StoreError as error:
            seat.take(None)
            log.warning("store.failed", detail=str(error))
        if not await _asked_to_end(shutdown, _CAMPAIGN_SECONDS):
            continue
    seat.take(None)


async def _one_term(
    settings: Settings,
    catalogue: Catalogue,
    store: Store,
    seat: Seat,
    gauges: Gauges,
    shutdown: Shutdown,
    own: str,
) -> None:
    book = Ledger(store)
    term = Term(settings, catalogue, await book.load(), book, gauges)
    log.info("leadership.taken", address=own, incarnation_id=term.incarnation_id)
    try:
        async with term.running():
            seat.take(term, own)
            while not await _asked_to_end(shutdown, _CHECK_SECONDS):
                if not await _still_leads(store):
                    log.warning("leadership.lost", address=own)
                    return
    finally:
        seat.take(None)
        await _resign(store)


async def _resign(store: Store) -> None:
    try:
        await store.resign()
    except StoreError as error:
        log.warning("store.failed", detail=str(error))


async def _still_leads(store: Store) -> bool:
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT_SECONDS):
            return await store.still_leads()
    except (StoreError, TimeoutError):
        return False


async def _asked_to_end(shutdown: Shutdown, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
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

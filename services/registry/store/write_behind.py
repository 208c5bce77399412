"""Writes to the store: at once where somebody waits for it, else in the background."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncGenerator, Awaitable, Mapping
from typing import Any, Final, TypeVar

import msgspec
import structlog

from services.backplane.errors import FleetError, Reason
from services.backplane.process.faults import Faults
from services.backplane.timeouts import timeout
from services.registry.fleet.footprints import Learned
from services.registry.store.health import StoreHealth
from services.registry.store.ledger import Ledger
from services.registry.store.store import FactKind, Facts, Store, StoreError

# Learned figures that may wait to be written; the oldest are dropped, the next load teaches again.
_MOST_PENDING: Final = 1000
# Given to the store together: one that writes many with one call does so.
_MOST_AT_ONCE: Final = 64
# Pause after a write that failed.
_RETRY_SECONDS: Final = 5.0

T = TypeVar("T")

log = structlog.get_logger()


class FactWriter:
    """Writes facts. What an operator sets is durable before the answer; the rest comes later."""

    def __init__(self, store: Store, faults: Faults) -> None:
        self._store = store
        self._faults = faults
        self._health = StoreHealth()
        self._pending: dict[tuple[FactKind, str], str] = {}
        self._news = asyncio.Event()

    @property
    def ledger(self) -> Ledger:
        """The store's tables of shares and usage, which are written at once."""
        return self._store.ledger

    async def load(self) -> Facts:
        """Reads all facts."""
        return await self._store.load()

    async def write(self, kind: FactKind, key: str, value: str = "") -> None:
        """Writes a fact and returns when it is durable.

        Raises:
            StoreError: it is not.
        """
        await self._store.put(kind, key, value)

    async def delete(self, kind: FactKind, key: str) -> None:
        """Removes a fact and returns when that is durable.

        Raises:
            StoreError: it is not.
        """
        await self._store.delete(kind, key)

    def write_later(self, kind: FactKind, key: str, value: str) -> None:
        """Writes a fact in the background. If it is lost, it is learned again."""
        self._pending.pop((kind, key), None)
        self._pending[kind, key] = value
        while len(self._pending) > _MOST_PENDING:
            del self._pending[next(iter(self._pending))]
        self._news.set()

    def write_learned_later(self, records: Mapping[str, Learned]) -> None:
        """Writes learned figures in the background."""
        for key, learned in records.items():
            self.write_later(FactKind.FOOTPRINT, key, msgspec.json.encode(learned).decode())

    @contextlib.asynccontextmanager
    async def writing(self) -> AsyncGenerator[None]:
        """Writes in the background while the context is open, and the rest at its end."""
        task = self._faults.vital(self._write_for_ever(), name="facts")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._write_pending()

    async def _write_for_ever(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with timeout(_RETRY_SECONDS if self._pending else None):
                    await self._news.wait()
            self._news.clear()
            await self._write_pending()

    async def _write_pending(self) -> None:
        while self._pending:
            facts = list(itertools.islice(self._pending.items(), _MOST_AT_ONCE))
            written = await asyncio.gather(
                *(self._write_fact(*fact, value) for fact, value in facts)
            )
            if not all(written):
                return

    async def _write_fact(self, kind: FactKind, key: str, value: str) -> bool:
        """Writes one of those that wait; False where the store fails."""
        fact = kind, key
        try:
            await self._store.put(kind, key, value)
        except StoreError as error:
            self._health.failed(str(error), pending=len(self._pending))
            # behind the others: one that can never be written must not keep them back
            if self._pending.get(fact) == value:
                self._pending[fact] = self._pending.pop(fact)
            return False
        except Exception as error:  # noqa: BLE001 - it is noted, and this fact is given up
            self._faults.note("facts", error, kind=kind.value)
        self._health.worked()
        if self._pending.get(fact) == value:
            del self._pending[fact]
        return True


async def durably(writing: Awaitable[T]) -> T:
    """Runs a write that its caller waits for, and returns its result.

    Raises:
        FleetError: REGISTRY_UNAVAILABLE: it could not be written.
    """
    try:
        return await writing
    except StoreError as error:
        message = f"It could not be written, so nothing was changed: {error}"
        raise FleetError(Reason.REGISTRY_UNAVAILABLE, message, retry_after_seconds=1.0) from error


def learned_of(facts: Facts) -> dict[str, Learned]:
    """The learned figures by key; those that cannot be read are left out."""
    records: dict[str, Learned] = {}
    for key, text in facts[FactKind.FOOTPRINT].items():
        try:
            fields: dict[str, Any] = json.loads(text)
            records[key] = msgspec.convert(fields, Learned)
        except (ValueError, msgspec.ValidationError):
            log.warning("store.unreadable", kind=FactKind.FOOTPRINT.value, key=key)
    return records


def created_of(facts: Facts) -> dict[str, int]:
    """When models were first known; what cannot be read is left out."""
    found: dict[str, int] = {}
    for model, text in facts[FactKind.MODEL].items():
        if text.isdecimal():
            found[model] = int(text)
        else:
            log.warning("store.unreadable", kind=FactKind.MODEL.value, key=model)
    return found

"""Opens the store that a URL names."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator

from services.backplane.settings import SettingsError
from services.registry.store.sqlite import SqliteStore, default_path
from services.registry.store.store import Store, StoreError


@contextlib.asynccontextmanager
async def open_store(url: str, *, lease_seconds: float) -> AsyncGenerator[Store]:
    """The store while the context is open.

    Args:
        url: `sqlite:PATH`, `sqlite::memory:`, `postgresql://…`; empty for the default file.
        lease_seconds: where several registries are, how long one that leads and is not heard of
            goes on leading.

    Raises:
        SettingsError: it cannot be opened; the message names the setting and why.
    """
    store = _made(url, lease_seconds)
    try:
        await store.open()
    except StoreError as error:
        raise SettingsError(f"registry.store: {error}") from error
    try:
        yield store
    finally:
        await store.close()


def _made(url: str, lease_seconds: float) -> Store:
    if not url:
        return SqliteStore(str(default_path()))
    if url.startswith("sqlite:"):
        return SqliteStore(url.removeprefix("sqlite:"))
    if url.startswith(("postgresql://", "postgres://")):
        try:
            from services.registry.store.postgres import PostgresStore
        except ImportError as error:
            message = "registry.store: PostgreSQL needs `pip install cortex-fleet[postgres]`"
            raise SettingsError(message) from error
        return PostgresStore(url, lease_seconds=lease_seconds)
    raise SettingsError(
        f"registry.store: {url!r} is none of sqlite:PATH, sqlite::memory:, postgresql://…"
    )

"""Opens the store that a URL names."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import AsyncGenerator
from typing import Final

from services.backplane.settings import SettingsError
from services.registry.store.kubernetes.address import SCHEME, KubernetesAddress
from services.registry.store.sqlite import SqliteStore, default_path
from services.registry.store.store import Store, StoreError

_POSTGRES: Final = ("postgresql://", "postgres://")


@contextlib.asynccontextmanager
async def open_store(url: str, *, lease_seconds: float) -> AsyncGenerator[Store]:
    """The store while the context is open.

    Args:
        url: `sqlite:PATH`, `sqlite::memory:`, `postgresql://…`, `kubernetes://NAMESPACE/NAME`;
            empty for the default file.
        lease_seconds: where several registries are, how long one that leads and is not heard of
            goes on leading.

    Raises:
        SettingsError: it cannot be opened; the message names the setting and why.
    """
    store = _made(url, lease_seconds)
    try:
        await store.open()
    except StoreError as error:
        await store.close()
        raise SettingsError(f"registry.store: {error}") from error
    try:
        yield store
    finally:
        await store.close()


def check_url(url: str) -> None:
    """Looks at a URL without opening what it names.

    Raises:
        SettingsError: no store can be meant by it. The message has nothing of it: there may be a
            password in it.
    """
    if not url or url.startswith("sqlite:"):
        return
    if url.startswith(SCHEME):
        _check_kubernetes(url)
    elif url.startswith(_POSTGRES):
        _check_postgres(url)
    else:
        raise SettingsError(
            "registry.store: is none of sqlite:PATH, sqlite::memory:, postgresql://…,"
            " kubernetes://NAMESPACE/NAME"
        )


def _check_kubernetes(url: str) -> None:
    if importlib.util.find_spec("httpx2") is None:
        raise SettingsError(
            "registry.store: Kubernetes needs `pip install cortex-fleet[kubernetes]`"
        )
    try:
        KubernetesAddress.parse(url)
    except ValueError as error:
        raise SettingsError(f"registry.store: {error}") from error


def _check_postgres(url: str) -> None:
    try:
        from psycopg import ProgrammingError
        from psycopg.conninfo import conninfo_to_dict
    except ImportError as error:
        message = "registry.store: PostgreSQL needs `pip install cortex-fleet[postgres]`"
        raise SettingsError(message) from error
    try:
        ports = str(conninfo_to_dict(url).get("port") or "")
        is_read = all(not port or port.isdecimal() for port in ports.split(","))
    except ProgrammingError:
        is_read = False
    if not is_read:
        raise SettingsError(
            "registry.store: PostgreSQL cannot read this URL; what is special in a user's name or "
            "password is percent-encoded in it: % is %25, @ is %40, : is %3A, / is %2F"
        )


def _made(url: str, lease_seconds: float) -> Store:
    check_url(url)
    if not url:
        return SqliteStore(str(default_path()))
    if url.startswith("sqlite:"):
        return SqliteStore(url.removeprefix("sqlite:"))
    if url.startswith(SCHEME):
        from services.registry.store.kubernetes.store import KubernetesStore

        return KubernetesStore(KubernetesAddress.parse(url), lease_seconds=lease_seconds)
    from services.registry.store.postgres import PostgresStore

    return PostgresStore(url, lease_seconds=lease_seconds)

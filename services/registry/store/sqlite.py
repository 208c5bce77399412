"""The store of a single registry: one SQLite file, written by one thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import pathlib
import sqlite3
from collections.abc import Callable
from typing import TypeVar

from typing_extensions import override

from services.registry.store.leader_lease import LeaderLease
from services.registry.store.ledger_sql import TABLES
from services.registry.store.sqlite_ledger import SqliteLedger
from services.registry.store.store import FactKind, Facts, Store, StoreError, facts_of

T = TypeVar("T")

# A registry that is being restarted has let go of the file by then.
LOCK_SECONDS = 5.0

_TABLE = """
CREATE TABLE IF NOT EXISTS facts (
  kind TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, key)
) WITHOUT ROWID
"""
_PUT = (
    "INSERT INTO facts (kind, key, value) VALUES (?, ?, ?) "
    "ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value"
)


def default_path() -> pathlib.Path:
    """`registry.sqlite` in the user's state directory."""
    state = os.environ.get("XDG_STATE_HOME") or pathlib.Path.home() / ".local" / "state"
    return pathlib.Path(state) / "cortex" / "registry.sqlite"


class SqliteStore(Store):
    """Facts in a file.

    Args:
        path: the file, made with its directories and readable by its owner alone; `:memory:`
            forgets everything at the end.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._thread = concurrent.futures.ThreadPoolExecutor(1, "registry-store")
        self._database: sqlite3.Connection | None = None

    @override
    async def open(self) -> None:
        self._database = await self._run(self._connect)

    def _connect(self) -> sqlite3.Connection:
        if self._path != ":memory:":
            file = pathlib.Path(self._path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch(mode=0o640, exist_ok=True)
        database = sqlite3.connect(self._path, timeout=LOCK_SECONDS, isolation_level=None)
        # a second registry on the same file would overwrite what this one knows
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        database.execute("PRAGMA journal_mode = WAL")
        # what was revoked is not believed again after a power cut
        database.execute("PRAGMA synchronous = FULL")
        for statement in (_TABLE, *TABLES):
            database.execute(statement)
        return database

    @property
    @override
    def ledger(self) -> SqliteLedger:
        return SqliteLedger(self._run_on)

    @override
    async def load(self) -> Facts:
        rows = await self._run(lambda: list(self._open().execute("SELECT * FROM facts")))
        return facts_of(rows)

    @override
    async def put(self, kind: FactKind, key: str, value: str) -> None:
        await self._run(lambda: self._open().execute(_PUT, (kind.value, key, value)))

    @override
    async def delete(self, kind: FactKind, key: str) -> None:
        statement = "DELETE FROM facts WHERE kind = ? AND key = ?"
        await self._run(lambda: self._open().execute(statement, (kind.value, key)))

    @override
    async def try_lead(self, address: str) -> LeaderLease | None:
        """Always granted: a SQLite file has one registry."""
        return LeaderLease()

    @override
    async def renew(self) -> LeaderLease | None:
        """Always renewed: nobody else can have taken it."""
        return LeaderLease()

    @override
    async def leader(self) -> str:
        """Always empty: no other registry can lead."""
        return ""

    @override
    async def resign(self) -> None:
        """Does nothing: there is nobody to leave the leadership to."""

    @override
    async def close(self) -> None:
        if self._database is not None:
            await self._run(self._database.close)
            self._database = None
        self._thread.shutdown(wait=False)

    def _open(self) -> sqlite3.Connection:
        assert self._database is not None
        return self._database

    async def _run_on(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._run(lambda: work(self._open()))

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"sqlite:{self._path}: {error}") from error

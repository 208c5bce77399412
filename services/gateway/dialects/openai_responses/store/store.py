"""The store of responses (`store`, `previous_response_id`), in SQLite.

One SQLite file, which several gateway processes may share, or memory only. Bounded by number and by
bytes: the oldest go first. Reads and writes run where they are asked for, 10 and 50 us, because
nothing of them waits for a disk: in WAL mode a commit that need not survive a power cut only copies
to the page cache. What does wait, forgetting and checkpoints, runs on a thread of the store's own.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import structlog
from typing_extensions import override

from services.backplane.settings import SettingsError
from services.gateway.dialects.openai_responses.store.owner import ProcessOwner
from services.gateway.dialects.openai_responses.store.responses import (
    Link,
    Responses,
    StoredResponse,
)

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS responses (
    position INTEGER PRIMARY KEY AUTOINCREMENT,
    response_id TEXT NOT NULL UNIQUE,
    previous_id TEXT,
    owner TEXT NOT NULL,
    response BLOB NOT NULL,
    input_items BLOB NOT NULL,
    bytes INTEGER NOT NULL
)
"""
# What runs in the background, and which process runs it.
_RUNS_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS runs (
    response_id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    runner TEXT NOT NULL
)
"""
# The last position that has to go: everything from there on is past one of the bounds.
_SURPLUS: Final = """
SELECT MAX(position) FROM (
    SELECT position, ROW_NUMBER() OVER newest AS count, SUM(bytes) OVER newest AS total
    FROM responses WINDOW newest AS (ORDER BY position DESC)
) WHERE count > ? OR total > ?
"""
# The bounds may be passed by this many responses between two looks.
_PUTS_PER_TRIM: Final = 64

log = structlog.get_logger()


class ResponsesStore(Responses):
    """Keeps the newest responses. For any thread: every statement is a transaction of its own.

    Attributes:
        keeps_unstored: False; what is not to be stored is not kept here at all.

    Args:
        path: the file, made where it is missing; None keeps everything in memory.
        max_responses: most responses that are kept, but for a few dozen.
        max_bytes: likewise, most bytes of contents.

    Raises:
        SettingsError: the file cannot be used.
    """

    keeps_unstored = False

    def __init__(
        self, path: Path | None, *, max_responses: int = 10_000, max_bytes: int = 512 << 20
    ) -> None:
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._path = path
        try:
            if path is not None:
                # Conversations are nobody else's business; SQLite's own files follow this mode.
                path.touch(mode=0o600)
            self._connection = self._connect()
            self._connection.execute(_SCHEMA)
            self._connection.execute(_RUNS_SCHEMA)
            self._process = ProcessOwner(path)
        except (sqlite3.Error, OSError) as error:
            raise SettingsError(
                f"gateway.responses_file: {path} cannot be used: {error}"
            ) from error
        self._puts = 0
        self._trimmer = ThreadPoolExecutor(1, thread_name_prefix="responses-store")

    def _connect(self) -> sqlite3.Connection:
        # threads that decode bodies read from it too; SQLite takes one statement after another
        name = ":memory:" if self._path is None else str(self._path)
        connection = sqlite3.connect(
            name, isolation_level=None, timeout=1.0, check_same_thread=False
        )
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "wal_autocheckpoint=0"):
            connection.execute(f"PRAGMA {pragma}")
        return connection

    @override
    def put(self, record: StoredResponse, *, stored: bool = True) -> None:
        """Stores a response. Where that fails it is logged, and the response is not found later."""
        if not stored:
            return
        try:
            self._connection.execute(
                "INSERT OR REPLACE INTO responses"
                " (response_id, previous_id, owner, response, input_items, bytes)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (*dataclasses.astuple(record), record.size()),
            )
        except sqlite3.Error as error:
            log.warning("response.not_stored", reason=str(error))
            return
        self._puts += 1
        if self._puts % _PUTS_PER_TRIM == 0:
            if self._path is None:
                self._trim(self._connection)
            else:
                self._trimmer.submit(self._trim_file)

    @override
    def get(self, response_id: str, *, owner: str) -> StoredResponse | None:
        """Finds a response of this owner; None if there is none."""
        row = self._connection.execute(
            "SELECT response_id, previous_id, owner, response, input_items"
            " FROM responses WHERE response_id = ? AND owner = ?",
            (response_id, owner),
        ).fetchone()
        return StoredResponse(*row) if row else None

    @override
    def link(self, response_id: str, *, owner: str) -> Link | None:
        """What a response of this owner went on from, and its size; None if there is none."""
        row = self._connection.execute(
            "SELECT previous_id, bytes FROM responses WHERE response_id = ? AND owner = ?",
            (response_id, owner),
        ).fetchone()
        return Link(*row) if row else None

    def delete(self, response_id: str, *, owner: str) -> bool:
        """Deletes a response; False if this owner has none with that id."""
        gone = self._connection.execute(
            "DELETE FROM responses WHERE response_id = ? AND owner = ?", (response_id, owner)
        )
        return gone.rowcount > 0

    def begin_run(self, response_id: str, *, owner: str) -> bool:
        """Notes that this process runs a response in the background; False where that fails."""
        try:
            self._connection.execute(
                "INSERT OR REPLACE INTO runs (response_id, owner, runner) VALUES (?, ?, ?)",
                (response_id, owner, self._process.token),
            )
        except sqlite3.Error as error:
            log.warning("response.run_not_noted", reason=str(error))
            return False
        return True

    def end_run(self, response_id: str, *, owner: str) -> bool:
        """Notes that it has ended; False if it did not run, or was ended before."""
        gone = self._connection.execute(
            "DELETE FROM runs WHERE response_id = ? AND owner = ?", (response_id, owner)
        )
        return gone.rowcount > 0

    def lost_runs(self, response_id: str | None = None) -> list[tuple[str, str]]:
        """Ids and owners of runs whose process has ended: of one response, or all of them."""
        rows = self._connection.execute(
            "SELECT response_id, owner, runner FROM runs WHERE ?1 IS NULL OR response_id = ?1",
            (response_id,),
        )
        return [(found, owner) for found, owner, by in rows if not self._process.is_alive(by)]

    def forget_ended_processes(self) -> None:
        """Removes the lock files of processes that have ended."""
        self._process.sweep()

    def close(self) -> None:
        """Trims to the bounds and closes the file."""
        if self._path is not None:
            self._trimmer.submit(self._trim_file)
        self._trimmer.shutdown(wait=True)
        self._connection.close()
        self._process.close()

    def _trim_file(self) -> None:
        try:
            connection = self._connect()
            try:
                self._trim(connection)
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            finally:
                connection.close()
        except sqlite3.Error as error:
            log.warning("responses.not_trimmed", reason=str(error))

    def _trim(self, connection: sqlite3.Connection) -> None:
        # The look takes no lock; only the short deletion keeps writers waiting.
        bounds = (self._max_responses, self._max_bytes)
        surplus = connection.execute(_SURPLUS, bounds).fetchone()[0]
        if surplus is not None:
            connection.execute("DELETE FROM responses WHERE position <= ?", (surplus,))

"""Stored responses: what `store` keeps and `previous_response_id` finds again.

One SQLite file, or memory only. Bounded by number and by bytes: the oldest go first. Reads are
primary-key look-ups and run where they are asked for; writes run on a thread of the store's own, so
that no disk stalls the event loop, and are visible to readers at once.
"""

from __future__ import annotations

import dataclasses
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

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


@dataclasses.dataclass(frozen=True, slots=True)
class StoredResponse:
    """One response as it was told, and the input that was new to it.

    Attributes:
        response_id: its id.
        previous_id: the response that it went on from, or None.
        owner: whose it is: the hash of a key, or empty. Nobody else finds it.
        response: the response object, JSON.
        input_items: its own input items, a JSON list; earlier ones are those of `previous_id`.
    """

    response_id: str
    previous_id: str | None
    owner: str
    response: bytes
    input_items: bytes

    def size(self) -> int:
        """Bytes of its contents."""
        return len(self.response) + len(self.input_items)


class ResponsesStore:
    """Keeps responses, newest first, within bounds.

    Args:
        path: the file, made where it is missing; None keeps everything in memory.
        max_responses: most responses that are kept.
        max_bytes: most bytes of contents that are kept.
        max_pending: writes that may wait for the disk; past it `put` waits for one.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        max_responses: int = 10_000,
        max_bytes: int = 512 << 20,
        max_pending: int = 256,
    ) -> None:
        self._max_responses = max_responses
        self._max_bytes = max_bytes
        self._name = ":memory:" if path is None else str(path)
        self._writer = self._connect()
        # A reader of its own never waits for a writer: the file is in WAL mode.
        self._reader = self._writer if path is None else self._connect()
        self._lock = threading.Lock()
        self._pending: dict[str, StoredResponse] = {}
        self._slots = threading.BoundedSemaphore(max_pending)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="responses-store")

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._name, check_same_thread=False, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA busy_timeout=5000")
        connection.execute(_SCHEMA)
        return connection

    def put(self, record: StoredResponse) -> None:
        """Keeps a response; one of the same id is replaced."""
        self._slots.acquire()
        with self._lock:
            self._pending[record.response_id] = record
        self._thread.submit(self._write, record)

    def get(self, response_id: str, *, owner: str) -> StoredResponse | None:
        """Finds a response of this owner's."""
        with self._lock:
            found = self._pending.get(response_id) or self._read(response_id)
        return found if found is not None and found.owner == owner else None

    def delete(self, response_id: str, *, owner: str) -> bool:
        """Forgets a response; False where this owner has none of that id."""
        if self.get(response_id, owner=owner) is None:
            return False
        # Behind the writes that wait, so that none of them brings it back.
        self._thread.submit(self._forget, response_id).result()
        return True

    def close(self) -> None:
        """Writes what waits and lets go of the file."""
        self._thread.shutdown(wait=True)
        self._writer.close()
        if self._reader is not self._writer:
            self._reader.close()

    def _read(self, response_id: str) -> StoredResponse | None:
        row = self._reader.execute(
            "SELECT response_id, previous_id, owner, response, input_items"
            " FROM responses WHERE response_id = ?",
            (response_id,),
        ).fetchone()
        return StoredResponse(*row) if row else None

    def _write(self, record: StoredResponse) -> None:
        try:
            self._writer.execute(
                "INSERT OR REPLACE INTO responses"
                " (response_id, previous_id, owner, response, input_items, bytes)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (*dataclasses.astuple(record), record.size()),
            )
            self._trim()
        finally:
            with self._lock:
                if self._pending.get(record.response_id) is record:
                    del self._pending[record.response_id]
            self._slots.release()

    def _trim(self) -> None:
        """Forgets the oldest until both bounds hold."""
        self._writer.execute(
            "DELETE FROM responses WHERE position <= COALESCE((SELECT MAX(position) FROM ("
            " SELECT position, ROW_NUMBER() OVER newest AS count, SUM(bytes) OVER newest AS total"
            " FROM responses WINDOW newest AS (ORDER BY position DESC))"
            " WHERE count > ? OR total > ?), 0)",
            (self._max_responses, self._max_bytes),
        )

    def _forget(self, response_id: str) -> None:
        self._writer.execute("DELETE FROM responses WHERE response_id = ?", (response_id,))

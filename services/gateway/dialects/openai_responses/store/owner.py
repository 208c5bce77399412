"""Whether the process that runs a response in the background is still alive.

Each process holds a lock on a file of its own, which the kernel releases when the process ends, in
whatever way. So nothing has to be renewed, and a process that is only slow is not taken for dead.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from pathlib import Path

_MARK = ".runner-"


class ProcessOwner:
    """This process, as the other processes with the same store see it.

    Attributes:
        token: its name.

    Args:
        shared: file of the store; None where it is in memory and not shared.

    Raises:
        OSError: no file can be made beside the store.
    """

    def __init__(self, shared: Path | None) -> None:
        self.token = secrets.token_hex(8)
        self._shared = shared
        self._lock: int | None = None
        if shared is not None:
            # under its name it is never seen unlocked
            unnamed = shared.with_name(f".{shared.name}.{self.token}")
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._lock = os.open(unnamed, flags, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            unnamed.rename(self._file(shared, self.token))

    def is_alive(self, token: str) -> bool:
        """True if the process of this name is alive."""
        if token == self.token:
            return True
        if self._shared is None:
            return False
        try:
            lock = os.open(self._file(self._shared, token), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False

    def sweep(self) -> None:
        """Removes the files of processes that have ended."""
        if self._shared is None:
            return
        for file in self._shared.parent.glob(f"{self._shared.name}{_MARK}*"):
            if not self.is_alive(file.name.rpartition("-")[2]):
                file.unlink(missing_ok=True)

    def close(self) -> None:
        """Releases the lock; others then see this process as dead."""
        if self._lock is not None and self._shared is not None:
            with contextlib.suppress(OSError):
                self._file(self._shared, self.token).unlink(missing_ok=True)
            os.close(self._lock)
            self._lock = None

    @staticmethod
    def _file(shared: Path, token: str) -> Path:
        return shared.with_name(f"{shared.name}{_MARK}{token}")

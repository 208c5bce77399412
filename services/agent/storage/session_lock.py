"""Keeps a stored session to one process, which could undo the turns of another."""

import fcntl
import os
from pathlib import Path


class SessionInUseError(Exception):
    """Another process has the session open."""


class SessionLocks:
    """The sessions that this process has open; the kernel frees them however it ends."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._held: dict[str, int] = {}

    def claim(self, session_id: str) -> None:
        """Takes a session unless it is ours already; raises SessionInUseError, OSError."""
        if session_id in self._held:
            return
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self._path(session_id), flags, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                raise SessionInUseError(
                    f"session {session_id} is open in another process: close it there first"
                ) from error
            raise
        self._held[session_id] = descriptor

    def release(self, session_id: str) -> None:
        """Gives a session back. The file stays: one that is removed could be locked twice."""
        descriptor = self._held.pop(session_id, None)
        if descriptor is not None:
            os.close(descriptor)

    def _path(self, session_id: str) -> Path:
        return self._directory / f".{session_id}.lock"

"""Keeps a stored session to one process, which could undo the turns of another."""

import contextlib
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
        while (descriptor := self._locked(session_id)) is None:
            pass
        self._held[session_id] = descriptor

    def holds(self, session_id: str) -> bool:
        """Whether this process has the session."""
        return session_id in self._held

    def release(self, session_id: str, *, is_gone: bool = False) -> None:
        """Gives a session back.

        Args:
            session_id: of the session.
            is_gone: the session was removed, and nothing of it is to stay.
        """
        descriptor = self._held.pop(session_id, None)
        if descriptor is not None:
            if is_gone:
                self._path(session_id).unlink(missing_ok=True)
            os.close(descriptor)

    def _locked(self, session_id: str) -> int | None:
        """Returns the locked file; None where it was removed between opening and locking."""
        path = self._path(session_id)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == os.fstat(descriptor).st_ino:
                    return descriptor
        except OSError as error:
            os.close(descriptor)
            if isinstance(error, BlockingIOError):
                raise SessionInUseError(
                    f"session {session_id} is open in another process: close it there first"
                ) from error
            raise
        os.close(descriptor)
        return None

    def _path(self, session_id: str) -> Path:
        return self._directory / f".{session_id}.lock"

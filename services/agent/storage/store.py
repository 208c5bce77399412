"""Sessions on disk: one JSON file each, replaced whole, so that a kill leaves old or new.

Writes go through one thread in the order in which they were asked for.
"""

import asyncio
import base64
import contextlib
import os
import re
import uuid
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar, TypeVarTuple

import msgspec
import structlog

from services.agent.core.history import Turn
from services.agent.core.model_options import ModelOptions
from services.agent.storage.projection import Marks
from services.agent.storage.session_lock import SessionInUseError, SessionLocks

log = structlog.get_logger(__name__)

VERSION = 1
"""Of the stored form; grows where an older agent would read a session wrongly."""
_TEMPORARY = re.compile(r"\.[0-9a-f-]{36}\.(\d+)\.tmp")
_SESSION_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PAGE = 50
_Args = TypeVarTuple("_Args")
_Result = TypeVar("_Result")


class SessionHeader(msgspec.Struct, kw_only=True):
    """What a list of sessions shows. Times are seconds since the epoch."""

    session_id: str
    cwd: str
    created_at: float
    updated_at: float
    title: str = ""
    mode: str = "default"
    model: str = ""
    additional_directories: list[str] = msgspec.field(default_factory=list[str])


class SessionRecord(SessionHeader, kw_only=True):
    """All that is stored of a session: its header, the history, and how far that is compacted."""

    history: list[Turn] = msgspec.field(default_factory=list[Turn])
    marks: Marks = Marks()
    model_options: ModelOptions = ModelOptions()
    version: int = VERSION


class _Versioned(msgspec.Struct):
    version: int = VERSION


class SessionNotFoundError(Exception):
    """No such session, or its file cannot be read."""


class SessionStoreError(Exception):
    """A session could not be written."""


class SessionStore:
    """The directory of sessions.

    Args:
        directory: made on the first save.
        executor: runs blocking calls; one worker, so that a later save never loses to an
            earlier one.
        now: seconds since the epoch.
    """

    def __init__(self, directory: Path, *, executor: Executor, now: Callable[[], float]) -> None:
        self._directory = directory
        self._locks = SessionLocks(directory)
        self._executor = executor
        self._now = now

    def create(self, *, cwd: str, mode: str, model: str) -> SessionRecord:
        """Returns a new record under an id that no process has used; nothing is written yet."""
        now = self._now()
        return SessionRecord(
            session_id=str(uuid.uuid4()),
            cwd=cwd,
            mode=mode,
            model=model,
            created_at=now,
            updated_at=now,
        )

    async def claim(self, session_id: str) -> None:
        """Keeps other processes from opening a session; without a usable disk nothing is kept.

        Raises:
            SessionInUseError: another process has it open.
            SessionNotFoundError: it is no id of ours.
        """
        self._path(session_id)
        try:
            await self._run(self._locks.claim, session_id)
        except OSError as error:
            log.warning("session not locked", session_id=session_id, reason=str(error))

    async def release(self, session_id: str) -> None:
        """Lets other processes open a session again."""
        await self._run(self._release, session_id)

    async def save(self, record: SessionRecord) -> None:
        """Writes the record as it is now. Cancelling leaves the old file or the new one.

        Raises:
            SessionStoreError: it cannot be encoded or written.
        """
        record.updated_at = max(self._now(), record.updated_at)
        try:
            data = msgspec.json.encode(record)
            await self._run(self._write, record.session_id, data)
        except (OSError, ValueError, TypeError) as error:
            raise SessionStoreError(str(error)) from error

    async def load(self, session_id: str) -> SessionRecord:
        """Reads one session; raises SessionNotFoundError."""
        return await self._run(self._read, session_id)

    async def delete(self, session_id: str) -> None:
        """Removes one session, if it is there.

        Raises:
            SessionNotFoundError: it is no id of ours.
            OSError: it cannot be removed.
        """
        await self._run(self._unlink, session_id)

    async def tidy(self, *, kept: int) -> list[str]:
        """Removes what killed processes left half written, and the oldest sessions.

        Args:
            kept: most sessions that stay; 0 keeps all. One that is open anywhere stays.

        Returns: ids of the sessions that were removed.
        """
        return await self._run(self._tidy, kept)

    async def page(
        self, *, cwd: str | None, cursor: str | None
    ) -> tuple[list[SessionHeader], str | None]:
        """Returns up to 50 headers, newest first, and the cursor of the next page.

        A session without a title has never had a prompt and is left out.

        Raises:
            ValueError: the cursor is none of ours.
        """
        after = _decode_cursor(cursor) if cursor else None
        headers = await self._run(self._headers)
        headers = [each for each in headers if each.title and cwd in {None, each.cwd}]
        headers.sort(key=_order)
        if after is not None:
            headers = [each for each in headers if _order(each) > after]
        page, rest = headers[:_PAGE], headers[_PAGE:]
        return page, _encode_cursor(page[-1]) if rest else None

    async def _run(self, call: Callable[[*_Args], _Result], *arguments: *_Args) -> _Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, call, *arguments)

    def _path(self, session_id: str) -> Path:
        """Returns the file of an id of ours; any other text could name a file elsewhere."""
        if not _SESSION_ID.fullmatch(session_id):
            raise SessionNotFoundError(session_id)
        return self._directory / f"{session_id}.json"

    def _write(self, session_id: str, data: bytes) -> None:
        path = self._path(session_id)
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = path.with_name(f".{session_id}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as file:
                temporary.chmod(0o600)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)

    def _read(self, session_id: str) -> SessionRecord:
        try:
            data = self._path(session_id).read_bytes()
            version = msgspec.json.decode(data, type=_Versioned).version
            if version > VERSION:
                raise SessionNotFoundError(
                    f"{session_id} was saved by a newer agent (version {version}, this one reads"
                    f" up to {VERSION})"
                )
            return msgspec.json.decode(data, type=SessionRecord)
        except (OSError, msgspec.DecodeError) as error:
            raise SessionNotFoundError(f"{session_id}: {error}") from error

    def _unlink(self, session_id: str) -> None:
        self._path(session_id).unlink(missing_ok=True)

    def _release(self, session_id: str) -> None:
        self._locks.release(session_id, is_gone=not self._path(session_id).exists())

    def _tidy(self, kept: int) -> list[str]:
        for path in self._directory.glob(".*.tmp"):
            match = _TEMPORARY.fullmatch(path.name)
            if match and not _is_running(int(match[1])):
                path.unlink(missing_ok=True)
        found = {path: path.stat().st_mtime for path in self._directory.glob("*.json")}
        oldest = sorted(found, key=lambda path: found[path])
        removed: list[str] = []
        for path in oldest[: max(len(oldest) - kept, 0)] if kept else ():
            session_id = path.stem
            if not _SESSION_ID.fullmatch(session_id) or self._locks.holds(session_id):
                continue
            try:
                self._locks.claim(session_id)
                path.unlink(missing_ok=True)
                removed.append(session_id)
            except (SessionInUseError, OSError) as error:
                log.info("session not pruned", session_id=session_id, reason=str(error))
            finally:
                self._locks.release(session_id, is_gone=not path.exists())
        return removed

    def _headers(self) -> list[SessionHeader]:
        headers: list[SessionHeader] = []
        for path in self._directory.glob("*.json"):
            try:
                headers.append(msgspec.json.decode(path.read_bytes(), type=SessionHeader))
            except (OSError, msgspec.DecodeError) as error:
                log.warning("session skipped", file=path.name, reason=str(error))
        return headers


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True


def _order(header: SessionHeader) -> tuple[float, str]:
    return (-header.updated_at, header.session_id)


def _encode_cursor(header: SessionHeader) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(_order(header))).decode()


def _decode_cursor(cursor: str) -> tuple[float, str]:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(cursor), type=tuple[float, str])
    except (ValueError, msgspec.DecodeError) as error:
        raise ValueError("the cursor is not one that session/list gave") from error

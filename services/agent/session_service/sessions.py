"""The sessions that one editor has open."""

import asyncio
import datetime as dt
import os
from collections.abc import Sequence
from pathlib import Path
from weakref import WeakValueDictionary

import acp
import acp.interfaces
import structlog

from services.agent.core.editor import Offered
from services.agent.core.modes import Mode
from services.agent.prompt.project_commands import as_available, project_commands
from services.agent.session.mcp_servers import ServerSpec
from services.agent.session.replay import replayed
from services.agent.session.session import AgentSession
from services.agent.session_service.opening import SessionOpening
from services.agent.storage import commands
from services.agent.storage.session_lock import SessionInUseError
from services.agent.storage.store import (
    SessionHeader,
    SessionNotFoundError,
    SessionRecord,
    SessionStore,
)
from services.agent.tools.tool import Tool
from services.backplane.timeouts import timeout

log = structlog.get_logger(__name__)

_REPLAY_SECONDS = 30.0


class OpenSessions:
    """The open sessions by id; `connection` and `offered` are set when the editor arrives."""

    def __init__(
        self, *, store: SessionStore, opening: SessionOpening, tools: Sequence[Tool]
    ) -> None:
        self.connection: acp.interfaces.Client | None = None
        self.offered = Offered()
        self._store = store
        self._opening = opening
        self._tools = {tool.spec.name: tool for tool in tools}
        self._open: dict[str, AgentSession] = {}
        # While one opens or closes a session of an id, the next one of that id waits: what is
        # read from disk must be what the last one wrote.
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def get(self, session_id: str) -> AgentSession:
        """Returns an open session; raises RequestError."""
        session = self._open.get(session_id)
        if session is None:
            raise acp.RequestError.invalid_params({"reason": f"no open session {session_id}"})
        return session

    def holds(self, session: AgentSession) -> bool:
        """Whether a session is open still."""
        return self._open.get(session.record.session_id) is session

    def open(self, record: SessionRecord, servers: Sequence[ServerSpec] | None) -> AgentSession:
        """Makes a record's session the open one of its id."""
        if self.connection is None:
            raise acp.RequestError.internal_error({"reason": "there is no connection"})
        session = self._opening.open(
            record, connection=self.connection, offered=self.offered, servers=servers or ()
        )
        self._open[record.session_id] = session
        return session

    async def stored(self, session_id: str) -> SessionRecord:
        """Reads a stored session; raises RequestError."""
        try:
            return await self._store.load(session_id)
        except SessionNotFoundError as error:
            raise acp.RequestError.resource_not_found(session_id) from error

    async def reopen(
        self,
        session_id: str,
        cwd: str,
        additional: list[str] | None,
        servers: list[ServerSpec] | None,
    ) -> AgentSession:
        """Opens a stored session anew, in the directory that the editor names."""
        cwd, additional = checked_directories(cwd, additional)
        async with self._turn(session_id):
            await self._end(session_id)
            await self._claim(session_id)
            try:
                record = await self.stored(session_id)
            except acp.RequestError:
                await self._store.release(session_id)
                raise
            record.cwd = cwd
            if additional is not None:
                record.additional_directories = list(additional)
            if record.mode not in set(Mode):
                record.mode = Mode.DEFAULT.value
            session = self.open(record, servers)
        log.info("session loaded", session_id=session_id, turns=len(record.history))
        return session

    async def replay(self, session: AgentSession) -> None:
        """Shows the history; a prompt that comes meanwhile waits for it, but not for ever."""
        async with session.lock, timeout(_REPLAY_SECONDS):
            history = session.record.history
            for update in replayed(history, tools=self._tools, workspace=session.workspace):
                await session.editor.update(update)
            await self.offer_commands(session)

    async def offer_commands(self, session: AgentSession) -> None:
        """Tells the editor which commands there are, the project's own among them."""
        found = await asyncio.to_thread(project_commands, session.workspace.cwd)
        await session.editor.update(commands.available_commands(as_available(found)))

    async def close(self, session_id: str) -> None:
        """Cancels what runs in a session and forgets it; its file stays."""
        async with self._turn(session_id):
            await self._end(session_id)

    async def delete(self, session_id: str) -> None:
        """Cancels what runs in a session and removes its file; one that is gone is no error."""
        async with self._turn(session_id):
            await self._end(session_id)
            await self._claim(session_id)
            try:
                await self._store.delete(session_id)
                await asyncio.to_thread(self._opening.checkpoints(session_id).forget)
            except SessionNotFoundError as error:
                raise acp.RequestError.resource_not_found(session_id) from error
            except OSError as error:
                raise acp.RequestError.internal_error({"reason": str(error)}) from error
            finally:
                await self._store.release(session_id)
        log.info("session deleted", session_id=session_id)

    async def tidy(self, *, kept: int) -> None:
        """Removes what killed agents left, and the oldest stored sessions; a failure is logged."""
        try:
            for session_id in await self._store.tidy(kept=kept):
                await asyncio.to_thread(self._opening.checkpoints(session_id).forget)
                log.info("session pruned", session_id=session_id, kept=kept)
        except OSError as error:
            log.warning("sessions not tidied", reason=str(error))

    def _turn(self, session_id: str) -> asyncio.Lock:
        return self._turns.setdefault(session_id, asyncio.Lock())

    async def _end(self, session_id: str) -> None:
        session = self._open.pop(session_id, None)
        if session is not None:
            await session.close()
            await self._store.release(session_id)

    async def _claim(self, session_id: str) -> None:
        try:
            await self._store.claim(session_id)
        except SessionInUseError as error:
            raise acp.RequestError.invalid_params({"reason": str(error)}) from error
        except SessionNotFoundError as error:
            raise acp.RequestError.resource_not_found(session_id) from error

    async def close_all(self) -> None:
        """Closes every session."""
        await asyncio.gather(*(self.close(session_id) for session_id in tuple(self._open)))


def checked_directories(cwd: str, additional: Sequence[str] | None) -> tuple[str, list[str] | None]:
    """Returns the paths in one spelling: `/p/` is `/p`.

    Raises:
        acp.RequestError: a path is not absolute, or no directory is there.
    """
    for path in (cwd, *(additional or ())):
        if not Path(path).is_absolute():
            raise acp.RequestError.invalid_params({"reason": f"not an absolute path: {path}"})
        if not os.path.isdir(path):  # noqa: PTH112 - it takes any text, and only says no
            raise acp.RequestError.invalid_params({"reason": f"no such directory: {path}"})
    return plain(cwd), None if additional is None else [plain(path) for path in additional]


def plain(path: str) -> str:
    """Returns the one spelling of a path, its links left as they are."""
    return os.path.normpath(path)


def session_info(header: SessionHeader) -> acp.schema.SessionInfo:
    """A stored session as the editor's list of sessions shows it."""
    updated = dt.datetime.fromtimestamp(header.updated_at, tz=dt.UTC)
    return acp.schema.SessionInfo(
        session_id=header.session_id,
        cwd=header.cwd,
        title=header.title or None,
        updated_at=updated.isoformat(timespec="milliseconds"),
        additional_directories=header.additional_directories or None,
    )

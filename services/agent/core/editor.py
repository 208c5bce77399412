"""The editor at the other end, as one session sees it.

Every question but a permission has a deadline, so that a stuck editor cannot hold a session;
what the editor does not offer, or fails to do, is reported as such and done locally by others.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import acp
import acp.interfaces
import acp.schema
import structlog
from typing_extensions import override

from services.backplane.timeouts import timeout

log = structlog.get_logger(__name__)

CLEANUP_SECONDS = 3.0  # for each step of ending a terminal that is no longer wanted
_Answer = TypeVar("_Answer")

Content = (
    acp.schema.ContentToolCallContent
    | acp.schema.FileEditToolCallContent
    | acp.schema.TerminalToolCallContent
)


class EditorError(Exception):
    """The editor refused, failed, did not answer in time or is gone."""


class EditorRefusedError(EditorError):
    """The editor answered with an error, so that nothing has happened there."""


@dataclass(frozen=True, slots=True)
class Offered:
    """What the editor said at `initialize` that it can do."""

    reads: bool = False
    writes: bool = False
    terminals: bool = False

    @classmethod
    def of(cls, capabilities: acp.schema.ClientCapabilities | None) -> "Offered":
        """Reads the capabilities; what is not said is not offered."""
        if capabilities is None:
            return cls()
        files = capabilities.fs
        return cls(
            reads=bool(files and files.read_text_file),
            writes=bool(files and files.write_text_file),
            terminals=bool(capabilities.terminal),
        )


class Editor:
    """One session's link to its editor.

    Args:
        seconds: longest wait for an answer that no person has to give.
    """

    def __init__(
        self,
        connection: acp.interfaces.Client,
        *,
        session_id: str,
        offered: Offered,
        seconds: float,
    ) -> None:
        self._connection = connection
        self._session_id = session_id
        self._seconds = seconds
        self.offered = offered

    async def update(self, update: Any) -> None:
        """Sends one session update; waits while the editor does not read."""
        await self._connection.session_update(session_id=self._session_id, update=update)

    def only_cards(self, call_id: str, said: Callable[[str], Awaitable[None]]) -> "Editor":
        """Returns this link for work inside one call: of its updates only cards are passed on.

        Args:
            call_id: the call; each card names it, in its `_meta`.
            said: gets the text of messages instead of the editor.
        """
        return _InnerEditor(
            self._connection,
            session_id=self._session_id,
            offered=self.offered,
            seconds=self._seconds,
            call_id=call_id,
            said=said,
        )

    async def read(self, path: Path) -> str:
        """Returns a file's text with unsaved changes; raises EditorError."""
        answer = await self._ask(
            self._connection.read_text_file(session_id=self._session_id, path=str(path))
        )
        return answer.content

    async def write(self, path: Path, content: str) -> None:
        """Writes a file through the editor's buffers; raises EditorError."""
        await self._ask(
            self._connection.write_text_file(
                session_id=self._session_id, path=str(path), content=content
            )
        )

    async def choose(
        self,
        call: acp.schema.ToolCallUpdate,
        options: Sequence[acp.schema.PermissionOption],
    ) -> str | None:
        """Waits for a person to choose; returns the option's id, None when they dismissed it.

        Raises:
            EditorError: the editor failed to ask.
        """
        try:
            answer = await self._connection.request_permission(
                session_id=self._session_id, tool_call=call, options=list(options)
            )
        except (acp.RequestError, ConnectionError, ValueError) as error:
            raise EditorError(f"the editor could not ask for permission: {error}") from error
        outcome = answer.outcome
        return outcome.option_id if isinstance(outcome, acp.schema.AllowedOutcome) else None

    async def open_terminal(
        self, command: Sequence[str], cwd: Path, output_bytes: int
    ) -> "Terminal":
        """Starts a command in one of the editor's terminals; raises EditorError.

        Cancelled in between, it still ends the terminal when the editor names it at last.
        """
        creation = asyncio.ensure_future(
            self._connection.create_terminal(
                session_id=self._session_id,
                command=command[0],
                args=list(command[1:]),
                cwd=str(cwd),
                output_byte_limit=output_bytes,
            )
        )
        try:
            answer = await self._ask(asyncio.shield(creation))
        except BaseException:
            if not creation.cancelled():  # it may have been named in this very moment
                await self._end_late(creation)
            raise
        return Terminal(self._connection, self._session_id, answer.terminal_id, self._seconds)

    async def _end_late(
        self, creation: "asyncio.Future[acp.schema.CreateTerminalResponse]"
    ) -> None:
        """Ends a terminal whose creation nobody waits for any more; gives up after a while."""
        try:
            async with timeout(CLEANUP_SECONDS):
                answer = await creation
        except (acp.RequestError, ConnectionError, ValueError, TimeoutError):
            return
        terminal = Terminal(self._connection, self._session_id, answer.terminal_id, self._seconds)
        await terminal.end()

    async def _ask(self, question: Awaitable[_Answer]) -> _Answer:
        return await answered(question, self._seconds)


class _InnerEditor(Editor):
    """The link for work inside one call; made by `Editor.only_cards`."""

    def __init__(
        self,
        connection: acp.interfaces.Client,
        *,
        session_id: str,
        offered: Offered,
        seconds: float,
        call_id: str,
        said: Callable[[str], Awaitable[None]],
    ) -> None:
        super().__init__(connection, session_id=session_id, offered=offered, seconds=seconds)
        self._call_id = call_id
        self._said = said

    @override
    async def update(self, update: Any) -> None:
        if isinstance(update, acp.schema.ToolCallStart | acp.schema.ToolCallProgress):
            update.field_meta = {"cortex": {"parentToolCallId": self._call_id}}
            await super().update(update)
        elif isinstance(update, acp.schema.AgentMessageChunk) and isinstance(
            update.content, acp.schema.TextContentBlock
        ):
            await self._said(update.content.text)


class Terminal:
    """A command that runs in one of the editor's terminals."""

    def __init__(
        self, connection: acp.interfaces.Client, session_id: str, terminal_id: str, seconds: float
    ) -> None:
        self._connection = connection
        self._session_id = session_id
        self._seconds = seconds
        self.id = terminal_id

    async def wait(self) -> int | None:
        """Returns the exit code when the command ends, None for a signal; raises EditorError."""
        waiting = self._connection.wait_for_terminal_exit(
            session_id=self._session_id, terminal_id=self.id
        )
        return (await answered(waiting, None)).exit_code

    async def output(self) -> tuple[str, bool]:
        """Returns what it printed and whether the editor cut that; raises EditorError."""
        reading = self._connection.terminal_output(session_id=self._session_id, terminal_id=self.id)
        answer = await answered(reading, self._seconds)
        return answer.output, answer.truncated

    async def kill(self) -> None:
        """Kills the command and keeps the terminal; raises EditorError."""
        killing = self._connection.kill_terminal(session_id=self._session_id, terminal_id=self.id)
        await answered(killing, CLEANUP_SECONDS)

    async def release(self) -> None:
        """Gives the terminal back, which also kills what runs in it; raises EditorError."""
        releasing = self._connection.release_terminal(
            session_id=self._session_id, terminal_id=self.id
        )
        await answered(releasing, CLEANUP_SECONDS)

    async def end(self) -> None:
        """Kills and releases, whatever fails; takes twice CLEANUP_SECONDS at most."""
        for step in (self.kill, self.release):
            try:
                await step()
            except EditorError as error:
                log.warning("terminal not ended", terminal_id=self.id, exc_info=error)


async def answered(question: Awaitable[_Answer], seconds: float | None) -> _Answer:
    """Waits for the editor's answer.

    Raises:
        EditorRefusedError: it answered with an error.
        EditorError: it answered something malformed, or not in time, or is gone.
    """
    try:
        async with timeout(seconds):
            return await question
    except TimeoutError as error:
        raise EditorError(f"the editor did not answer within {seconds:g} s") from error
    except acp.RequestError as error:
        raise EditorRefusedError(f"the editor answered: {error}") from error
    except (ConnectionError, ValueError) as error:
        raise EditorError(f"the editor failed: {error}") from error

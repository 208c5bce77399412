"""One session: its record, its mode, and the one turn that may be in flight.

The history has one writer at a time: whoever holds `lock`, which a turn does from before its
user turn is added until its last round is saved. A newer prompt, or a cancel, takes a ticket,
which cancels the turn in flight and tells every prompt that still waits that it is too late.
"""

import asyncio
import secrets
import string
from collections.abc import Coroutine
from typing import Any

import structlog

from services.agent.core.editor import Editor
from services.agent.core.history import Turn, UserTurn, call_ids
from services.agent.core.modes import Mode, Places
from services.agent.core.plan_dir import PlanDirectory, resolve
from services.agent.core.workspace import Workspace
from services.agent.session.mcp_servers import McpServers
from services.agent.storage.checkpoints import FileCheckpoints
from services.agent.storage.compaction import CHARACTERS_PER_TOKEN
from services.agent.storage.permission_file import PermissionFile
from services.agent.storage.store import SessionRecord, SessionStore, SessionStoreError
from services.agent.tools.processes.background import BackgroundCommands
from services.backplane.timeouts import timeout

log = structlog.get_logger(__name__)

SAVE_SECONDS = 10.0
_FEWEST_TOKENS = 256  # below, what the template adds weighs too much
_CHARACTERS_OF_A_TOKEN = (1.0, 6.0)  # Chinese or base64, and plain English
UNWIND_SECONDS = 20.0  # for a cancelled turn to end its tools; each of its steps has less
_ID_ALPHABET = string.ascii_letters + string.digits
_LONGEST_ID = 40  # OpenAI's limit
_ID_LENGTH = 9  # the strictest endpoints (Mistral's) take nine letters and digits


class AgentSession:
    """A session that an editor has open."""

    def __init__(
        self,
        *,
        record: SessionRecord,
        store: SessionStore,
        editor: Editor,
        workspace: Workspace,
        plans: PlanDirectory,
        mcp: McpServers,
        permissions: PermissionFile,
        checkpoints: FileCheckpoints,
    ) -> None:
        self.record = record
        self.editor = editor
        self.workspace = workspace
        self.plans = plans
        self.mcp = mcp
        self.permissions = permissions
        self.checkpoints = checkpoints
        self.background = BackgroundCommands()
        self.lock = asyncio.Lock()
        self.granted: set[str] = set()  # what the user allowed for as long as the session is open
        self.text_only: set[str] = set()  # `endpoint:model`s that refuse native tools
        self.characters_per_token = CHARACTERS_PER_TOKEN
        self.summary_tried_at = -len(record.history)  # the turns that there were
        self._notices: dict[str, bool] = {}  # what the user has to know: whether it was told
        self._store = store
        self._ticket = 0
        self._running: asyncio.Task[Any] | None = None
        self._is_cancelled = False
        self._call_ids = call_ids(record.history)

    @property
    def mode(self) -> Mode:
        """The mode at this moment; it may change between any two awaits."""
        return Mode(self.record.mode)

    def places(self) -> Places:
        """Resolves the directories that decisions depend on, as they are on disk now."""
        roots = tuple(resolve(root) for root in self.workspace.roots)
        return Places(roots, self.plans.resolved())

    def new_call_id(self, wanted: str) -> str:
        """Returns the endpoint's id if this session has never seen it, else a fresh one."""
        candidate = wanted if len(wanted) <= _LONGEST_ID and wanted.isascii() else ""
        while not candidate or candidate in self._call_ids:
            candidate = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_LENGTH))
        self._call_ids.add(candidate)
        return candidate

    def tell_once(self, text: str) -> None:
        """Tells the user something before the next answer, unless it was told before."""
        self._notices.setdefault(text, False)

    def take_notices(self) -> list[str]:
        """Returns what is to be told now."""
        due = [text for text, is_told in self._notices.items() if not is_told]
        self._notices.update(dict.fromkeys(due, True))
        return due

    def calibrate(self, characters: int, tokens: int) -> None:
        """Takes in how many tokens the endpoint counted in a prompt of so many characters."""
        if tokens >= _FEWEST_TOKENS:
            lowest, highest = _CHARACTERS_OF_A_TOKEN
            self.characters_per_token = min(max(characters / tokens, lowest), highest)

    @property
    def steady_characters(self) -> int:
        """Characters of a token, whole: what is cut by it is cut alike in the next round."""
        return int(self.characters_per_token)

    def take_ticket(self) -> int:
        """Cancels what is in flight or waiting, and returns the number that is current now."""
        self._ticket += 1
        if self._running is not None and not self._is_cancelled:
            self._is_cancelled = True
            self._running.cancel()
        return self._ticket

    def is_current(self, ticket: int) -> bool:
        """Whether nobody has taken a ticket since."""
        return ticket == self._ticket

    @property
    def is_cancelled(self) -> bool:
        """Whether the running turn was cancelled, even if a library swallowed the exception."""
        return self._is_cancelled

    async def run(self, body: Coroutine[Any, Any, str]) -> str:
        """Runs a turn as the one in flight; the caller holds the lock.

        Returns what the body returns, `cancelled` when a ticket ended it. Leaves only when the
        body has ended, or has not within UNWIND_SECONDS of being cancelled.
        """
        task = asyncio.create_task(body)
        self._running, self._is_cancelled = task, False
        try:
            while not task.done() and not self._is_cancelled:
                await asyncio.wait({task}, timeout=UNWIND_SECONDS)
            await asyncio.wait({task}, timeout=UNWIND_SECONDS)
            if not task.done():
                log.error("cancelled turn does not end", session_id=self.record.session_id)
                return "cancelled"
            if self._is_cancelled or task.cancelled():
                _ = task.cancelled() or task.exception()
                return "cancelled"
            return task.result()
        finally:
            if not task.done():
                self.take_ticket()
                await asyncio.wait({task}, timeout=UNWIND_SECONDS)
            self._running = None

    def prompts(self) -> list[int]:
        """Returns where in the history each prompt begins."""
        turns = enumerate(self.record.history)
        return [index for index, turn in turns if isinstance(turn, UserTurn)]

    def last_prompt(self) -> UserTurn:
        """Returns what the user wrote last; an empty turn if nothing."""
        turns = reversed(self.record.history)
        return next((turn for turn in turns if isinstance(turn, UserTurn)), UserTurn(()))

    def rewind(self, start: int) -> None:
        """Takes back the history from a prompt on; the caller holds the lock."""
        del self.record.history[start:]
        self.record.marks = self.record.marks.rewound(start)

    def extend(self, *turns: Turn) -> None:
        """Adds turns to the history; the caller holds the lock."""
        self.record.history.extend(turns)

    async def save(self) -> bool:
        """Writes the session to disk; a failure is logged and returned, never raised."""
        try:
            async with timeout(SAVE_SECONDS):
                await self._store.save(self.record)
        except (SessionStoreError, TimeoutError) as error:
            log.warning("session not saved", session_id=self.record.session_id, exc_info=error)
            return False
        return True

    async def close(self) -> None:
        """Ends the turn in flight, the commands in the background and the session's servers."""
        self.take_ticket()
        async with self.lock:
            await self.background.close()
            await self.mcp.close()

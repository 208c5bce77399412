"""Takes one prompt from the editor's blocks to the protocol's answer."""

import asyncio
import re
from collections.abc import Sequence
from pathlib import Path

import acp
import acp.schema
import msgspec
import structlog

from services.agent.core.history import AssistantTurn, Part, TextPart, Turn, UserTurn, user_text
from services.agent.core.modes import Mode
from services.agent.core.settings import AgentSettings
from services.agent.core.text import one_line
from services.agent.endpoints.endpoint import EndpointError, TokenUsage
from services.agent.endpoints.selection import Endpoints, UnknownModelError
from services.agent.prompt.project_commands import invoked, project_commands
from services.agent.session.session import AgentSession
from services.agent.session_service.opening import SessionOpening
from services.agent.session_service.searching import Progress, Searching
from services.agent.session_service.session_options import SessionOptions
from services.agent.storage import commands
from services.agent.storage.checkpoints import Undone
from services.agent.tools.tool import Tool, ToolOutcome
from services.agent.turn.compacting import Compacting
from services.agent.turn.dispatch import Dispatcher
from services.agent.turn.turn import PromptTurn

log = structlog.get_logger(__name__)

# What an endpoint answers to a body that it will never take: an attachment, a paste.
_REFUSALS = frozenset({400, 413, 422})
_TITLE_CHARACTERS = 60
_MENU = {"1": Mode.ACCEPT_EDITS, "2": Mode.DEFAULT}


class Prompting:
    """Runs the prompts of all sessions; the state is the sessions'."""

    def __init__(
        self,
        *,
        settings: AgentSettings,
        endpoints: Endpoints,
        opening: SessionOpening,
        options: SessionOptions,
        tools: tuple[Tool, ...],
    ) -> None:
        self._settings = settings
        self._endpoints = endpoints
        self._opening = opening
        self._options = options
        self._tools = tools
        self._searching = Searching(
            settings=settings, endpoints=endpoints, opening=opening, tools=tools
        )

    async def run(
        self, session: AgentSession, ticket: int, parts: tuple[Part, ...]
    ) -> acp.schema.PromptResponse:
        """Runs one prompt; the caller holds the session's lock.

        The user's turn is in the history first of all, whatever becomes of it, and the
        session is saved last of all.

        Raises:
            acp.RequestError: the model could not be asked or broke off.
        """
        user = UserTurn(parts=parts)
        # Orders are what the user wrote, never what a file of the project makes of it.
        text = user_text(user)
        if count := commands.undone_prompts(text):
            await self._undo(session, count)
            return _response("end_turn", TokenUsage())
        mode = chosen_mode(session.mode, session.record.history, text)
        command = commands.command_in(text)
        if not command or command == commands.INIT:
            user = await _expanded(user, command, session.workspace.cwd)
        session.extend(user)
        is_first = not session.record.title
        if is_first:
            session.record.title = one_line(user_text(user), _TITLE_CHARACTERS) or "Untitled"
        usage, stop = TokenUsage(), "error"
        try:
            if not session.is_current(ticket):
                stop = "cancelled"
            elif command == commands.STATUS:
                stop = await session.run(self._status(session))
            elif command == commands.COMPACT:
                selection = await self._endpoints.select(session.record.model)
                compacting = Compacting(session, selection)
                focus = commands.focus_of(user_text(user))
                stop = await session.run(self._compact(session, compacting, focus))
                usage = compacting.usage
            else:
                turn = self._turn(session)
                stop = await session.run(self._started(session, turn, is_first=is_first, mode=mode))
                usage = turn.usage
        except (EndpointError, UnknownModelError) as error:
            if isinstance(error, EndpointError) and error.status in _REFUSALS:
                _mark_refused(session.record.history, user)
            status = error.status if isinstance(error, EndpointError) else None
            log.warning("prompt failed", status=status, exc_info=error)
            raise acp.RequestError(-32603, str(error), {"details": str(error)}) from error
        finally:
            await session.save()
            log.info("prompt complete", stop_reason=stop)
        return _response(stop, usage)

    async def _undo(self, session: AgentSession, count: int) -> None:
        """Takes back the last prompts, newest first: files that are as they left them, and turns.

        Neither the command nor what it says becomes part of the conversation.
        """
        undone = Undone()
        starts = session.prompts()[-count:]
        for start in reversed(starts):
            one = await asyncio.to_thread(session.checkpoints.undo, start)
            undone.restored += one.restored
            undone.left += one.left
            session.rewind(start)
        await session.save()
        log.info("prompts taken back", prompts=len(starts), files=len(undone.restored))
        text = commands.undone(len(starts), undone.restored, undone.left)
        await session.editor.update(acp.update_agent_message_text(text))

    def _turn(self, session: AgentSession) -> PromptTurn:
        async def search(task: str, call_id: str, progress: Progress) -> ToolOutcome:
            outcome, usage = await self._searching.run(
                session, task, call_id=call_id, progress=progress
            )
            turn.usage += usage
            return outcome

        turn = PromptTurn(
            session=session,
            endpoints=self._endpoints,
            tools=self._tools,
            dispatcher=Dispatcher(
                session,
                environment=self._opening.environment,
                output_bytes=self._settings.output_bytes,
                bash_seconds=self._settings.bash_seconds,
                set_mode=lambda mode: self._options.switch_mode(session, mode),
                search=search,
            ),
            prepare=lambda: self._opening.prepare(session),
            max_rounds=self._settings.max_rounds,
        )
        return turn

    async def _started(
        self, session: AgentSession, turn: PromptTurn, *, is_first: bool, mode: Mode | None
    ) -> str:
        if mode is not None:
            await self._options.switch_mode(session, mode)
        if is_first:
            await session.editor.update(
                acp.schema.SessionInfoUpdate(
                    session_update="session_info_update", title=session.record.title
                )
            )
        return await turn.run()

    async def _status(self, session: AgentSession) -> str:
        record = session.record
        try:
            selection = await self._endpoints.select(record.model)
            text = commands.status(record, selection.selector, selection.context_window)
        except UnknownModelError:
            text = commands.status(record, "", None)
        for each in session.background.running():
            text += f"\n\nIn the background: {each.name}, `{one_line(each.command, 100)}`"
        return await self._say(session, text)

    async def _compact(self, session: AgentSession, compacting: Compacting, focus: str) -> str:
        return await self._say(session, await compacting.now(focus))

    async def _say(self, session: AgentSession, text: str) -> str:
        """Answers a command and keeps the answer in the history."""
        await session.editor.update(acp.update_agent_message_text(text))
        session.extend(AssistantTurn(text=text))
        return "end_turn"


async def _expanded(user: UserTurn, command: str, cwd: Path) -> UserTurn:
    """Returns what a prompt asks the model that is /init or one of the project's own commands."""
    text = user_text(user)
    if command == commands.INIT:
        asked: str | None = commands.INIT_PROMPT
    elif text.lstrip().startswith("/"):
        asked = invoked(text, await asyncio.to_thread(project_commands, cwd))
    else:
        asked = None
    if asked is None:
        return user
    attached = (part for part in user.parts if not isinstance(part, TextPart))
    return UserTurn(parts=(TextPart(asked), *attached))


def _mark_refused(history: list[Turn], user: UserTurn) -> None:
    """Leaves a turn out of later requests, whose very first one was refused: they would be too."""
    if history and history[-1] is user:
        history[-1] = msgspec.structs.replace(user, is_refused=True)


def chosen_mode(mode: Mode, history: Sequence[Turn], text: str) -> Mode | None:
    """Returns the mode that an answer to plan mode's written menu chooses, None if it is none."""
    last = history[-1] if history else None
    is_menu = isinstance(last, AssistantTurn) and all(
        re.search(rf"^\W*{number}[.)]", last.text, re.MULTILINE) for number in "123"
    )
    if mode is not Mode.PLAN or not is_menu:
        return None
    return _MENU.get(text.strip().rstrip(".)"))


def _response(stop: str, usage: TokenUsage) -> acp.schema.PromptResponse:
    counted = acp.schema.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        cached_read_tokens=usage.cached_tokens or None,
        thought_tokens=usage.thought_tokens or None,
    )
    return acp.schema.PromptResponse.model_validate(
        {"stop_reason": stop, "usage": counted if usage != TokenUsage() else None}
    )

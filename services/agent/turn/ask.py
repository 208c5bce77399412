"""Asks the model for one answer, and copes once with what endpoints commonly refuse."""

import asyncio
import contextlib
import uuid
from collections.abc import Sequence
from typing import Protocol

import acp
import acp.schema
import structlog

from services.agent.answer.reply import Reply, Show, ShowCall, ShowText, ShowThought
from services.agent.answer.text_tool_calls import as_text
from services.agent.core.history import user_text, without_pictures
from services.agent.endpoints.endpoint import (
    CallDelta,
    EndpointError,
    ModelRequest,
    TextDelta,
    ThoughtDelta,
    TokenUsage,
    ToolSpec,
)
from services.agent.endpoints.selection import Selection
from services.agent.session.replay import identified
from services.agent.session.session import AgentSession
from services.agent.storage.compaction import Room, estimate
from services.agent.storage.projection import project
from services.agent.tools.tool import Tool
from services.agent.turn.compacting import Compacting

log = structlog.get_logger(__name__)

_MOST_ATTEMPTS = 4
_LONGEST_ANSWER = 4 * 1024 * 1024  # characters, its thoughts and calls included
_SHRINK = 0.7  # of the estimate, when an endpoint says that the conversation is too long


class PromptBuilder(Protocol):
    """Builds one round's system prompt from the mode and the rules files of that moment."""

    def __call__(self, text_tools: Sequence[ToolSpec], longest_rules: int | None, /) -> str:
        """Returns the prompt.

        Args:
            text_tools: the tools to describe in it.
            longest_rules: most characters of all rules files; None: there is no such limit.
        """
        ...


class RoundRequest:
    """One round's request to the model, asked again another way where an endpoint refuses it.

    Args:
        prompt: builds the system prompt.
    """

    def __init__(
        self,
        *,
        session: AgentSession,
        selection: Selection,
        tools: Sequence[Tool],
        prompt: PromptBuilder,
    ) -> None:
        self._session = session
        self._selection = selection
        self._tools = tools
        self._prompt = prompt
        self._kinds: dict[str, acp.schema.ToolKind] = {tool.spec.name: tool.kind for tool in tools}
        self._notice = ""  # what the user has to know of the next attempt
        self._message = str(uuid.uuid4())
        self._characters = 0  # of the last request, roughly
        self._longest_text: int | None = None  # of a user turn, where no window is known
        self._compacting = Compacting(session, selection)
        self.reply = self._new_reply()

    async def stream(self) -> None:
        """Streams the answer into `reply` and to the editor.

        Asks again, while nothing has arrived, in text when the endpoint refuses tools and
        shorter when it finds the conversation too long; and once when an answer is cut, since no
        tool has run by then.

        Raises:
            EndpointError: there is no whole answer; `reply` holds what has arrived.
        """
        was_cut = False
        for attempt in range(_MOST_ATTEMPTS):
            self.reply = self._new_reply()
            self._message = str(uuid.uuid4())
            try:
                await self._once()
            except EndpointError as error:
                is_again = error.is_cut and not was_cut
                if attempt + 1 == _MOST_ATTEMPTS:
                    raise
                is_coped = is_again or (self.reply.is_empty and await self._coped(error))
                if not is_coped:
                    raise
                if is_again:
                    was_cut = True
                    await self._withdraw(error)
            else:
                finished = self.reply.finished
                if finished is not None and finished.usage is not None:
                    self._session.calibrate(self._characters, finished.usage.input_tokens)
                return

    async def _withdraw(self, error: EndpointError) -> None:
        """Ends the cards of a cut answer, which is asked for again."""
        log.warning("answer cut, asked again", exc_info=error)
        for call in self.reply.turn().calls:
            await self._session.editor.update(acp.update_tool_call(call.id, status="failed"))
        self._notice = f"({error}: asked again)\n\n"

    @property
    def summaries(self) -> TokenUsage:
        """Tokens spent on summarising the history, where that was needed to fit the context."""
        return self._compacting.usage

    async def _tell(self) -> None:
        notices = [f"({text})\n\n" for text in self._session.take_notices()]
        if self._notice:
            notices.append(self._notice)
            self._notice = ""
        for notice in notices:
            await self._session.editor.update(acp.update_agent_thought_text(notice))

    @property
    def _is_text(self) -> bool:
        settings = self._selection.settings
        if settings.tool_calls == "auto":
            is_refused = self._selection.selector in self._session.text_only
            return is_refused or self._selection.can_call is False
        return settings.tool_calls == "text"

    def _new_reply(self) -> Reply:
        return Reply(
            tools={
                tool.spec.name: tuple(tool.spec.parameters.get("properties", ()))
                for tool in self._tools
            },
            is_text_format=self._is_text,
            new_id=self._session.new_call_id,
        )

    async def _once(self) -> None:
        request = await self._request()
        await self._tell()
        left = _LONGEST_ANSWER
        async with contextlib.aclosing(self._selection.endpoint.stream(request)) as events:
            async for event in events:
                if self._session.is_cancelled:  # even if a library swallowed the exception
                    raise asyncio.CancelledError
                if isinstance(event, TextDelta | ThoughtDelta):
                    left -= len(event.text)
                elif isinstance(event, CallDelta):
                    left -= len(event.arguments)
                if left < 0:
                    raise EndpointError(f"the answer goes on beyond {_LONGEST_ANSWER} characters")
                for show in self.reply.take(event):
                    await self._show(show)

    async def _request(self) -> ModelRequest:
        """Builds the request, having made room for it where the window is known."""
        specs = [tool.spec for tool in self._tools]
        record, window = self._session.record, self._selection.context_window
        longest_rules = None if window is None else window // 4 * self._session.steady_characters
        system = self._prompt(specs if self._is_text else (), longest_rules)
        described = 0 if self._is_text else sum(len(str(spec)) for spec in specs)
        overhead = len(system) + described
        room = None if window is None else self._compacting.room(overhead=overhead)
        if room is not None:
            await self._compacting.make_room(room)
        longest = room.longest_text if room else self._longest_text
        turns = project(record.history, record.marks, longest)
        if room is not None:
            turns = room.squeezed(turns)
        self._tell_of_cut(longest)
        if self._is_text and self._selection.can_call is False and specs:
            self._session.tell_once(
                f"{self._selection.selector} takes no tools, as its endpoint says:"
                " they are described in the text instead."
            )
        if self._selection.can_see is False:
            turns = without_pictures(turns)
        self._characters = estimate(turns, overhead, characters_per_token=1.0)
        return ModelRequest(
            model=self._selection.model,
            system=system,
            turns=as_text(turns) if self._is_text else turns,
            tools=() if self._is_text else specs,
            max_tokens=self._selection.settings.max_tokens,
            options=record.model_options,
        )

    def _tell_of_cut(self, longest: int | None) -> None:
        """Lets the user know that the model does not see all of what they wrote last."""
        length = len(user_text(self._session.last_prompt()))
        if longest is not None and length > longest:
            self._session.tell_once(
                f"Your prompt of {length} characters is too long for the model's window:"
                f" of its middle {length - longest} are left out."
            )

    async def _coped(self, error: EndpointError) -> bool:
        """Prepares another attempt, shorter or with tools as text; False where neither helps."""
        settings = self._selection.settings
        if error.is_context_exceeded:
            return await self._shortened()
        if error.is_tools_refused and settings.tool_calls == "auto" and not self._is_text:
            self._session.text_only.add(self._selection.selector)
            log.warning("tools asked for in text", endpoint=settings.name, status=error.status)
            self._notice = f"({error}: tools are described in the text instead)\n\n"
            return True
        return False

    async def _shortened(self) -> bool:
        """Shortens what an endpoint found too long; False where nothing could be left out."""
        record, characters = self._session.record, self._session.characters_per_token
        shown = project(record.history, record.marks, self._longest_text)
        now = estimate(shown, characters_per_token=characters)
        room = Room(int(now * _SHRINK), characters_per_token=characters)
        self._longest_text = int(room.tokens // 2 * characters)
        await self._compacting.make_room(room)
        return project(record.history, record.marks, self._longest_text) != shown

    async def _show(self, show: Show) -> None:
        editor = self._session.editor
        match show:
            case ShowText(text):
                update = acp.update_agent_message_text(text)
                await editor.update(identified(update, self._message))
            case ShowThought(text):
                thought = acp.update_agent_thought_text(text)
                await editor.update(identified(thought, self._message))
            case ShowCall(call_id, name):
                kind = self._kinds.get(name)
                title = name or "tool call"
                await editor.update(
                    acp.start_tool_call(call_id, title, kind=kind, status="pending")
                )

"""Asks the model for one answer, and copes once with what endpoints commonly refuse."""

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Sequence

import acp
import acp.schema
import structlog

from services.agent.answer.reply import Reply, Show, ShowCall, ShowText, ShowThought
from services.agent.answer.text_tool_calls import as_text
from services.agent.core.history import without_pictures
from services.agent.endpoints.endpoint import EndpointError, ModelRequest, ToolSpec
from services.agent.endpoints.selection import Selection
from services.agent.session.replay import identified
from services.agent.session.session import AgentSession
from services.agent.storage.compaction import advance, estimate, project, prompt_budget
from services.agent.tools.tool import Tool

log = structlog.get_logger(__name__)

_MOST_ATTEMPTS = 4
_SHRINK = 0.7  # of the estimate, when an endpoint says that the conversation is too long


class Asking:
    """One round's request to the model, asked again another way where an endpoint refuses it.

    Args:
        prompt: builds the system prompt for the tools that must be described in it.
    """

    def __init__(
        self,
        *,
        session: AgentSession,
        selection: Selection,
        tools: Sequence[Tool],
        prompt: Callable[[Sequence[ToolSpec]], str],
    ) -> None:
        self._session = session
        self._selection = selection
        self._tools = tools
        self._prompt = prompt
        self._kinds: dict[str, acp.schema.ToolKind] = {tool.spec.name: tool.kind for tool in tools}
        self._notice = ""  # what the user has to know of the next attempt
        self._message = str(uuid.uuid4())
        self._characters = 0  # of the last request, roughly
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
                await self._tell()
                await self._once()
            except EndpointError as error:
                is_again = error.is_cut and not was_cut
                is_coped = is_again or (self.reply.is_empty and self._coped(error))
                if attempt + 1 == _MOST_ATTEMPTS or not is_coped:
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

    async def _tell(self) -> None:
        if self._notice:
            notice, self._notice = self._notice, ""
            await self._session.editor.update(acp.update_agent_thought_text(notice))

    @property
    def _is_text(self) -> bool:
        settings = self._selection.settings
        if settings.tool_calls == "auto":
            return self._selection.selector in self._session.text_only
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
        endpoint = self._selection.endpoint
        async with contextlib.aclosing(endpoint.stream(self._ask())) as events:
            async for event in events:
                if self._session.is_cancelled:  # even if a library swallowed the exception
                    raise asyncio.CancelledError
                for show in self.reply.take(event):
                    await self._show(show)

    def _ask(self) -> ModelRequest:
        specs = [tool.spec for tool in self._tools]
        system = self._prompt(specs if self._is_text else ())
        overhead = self._overhead(system, specs)
        record = self._session.record
        window = self._selection.context_window
        if window is not None:
            budget = prompt_budget(window, self._selection.settings.max_tokens)
            self._compact(budget, overhead)
        turns = project(record.history, record.marks)
        if self._selection.can_see is False:
            turns = without_pictures(turns)
        self._characters = estimate(turns, overhead, characters_per_token=1.0)
        return ModelRequest(
            model=self._selection.model,
            system=system,
            turns=as_text(turns) if self._is_text else turns,
            tools=() if self._is_text else specs,
            max_tokens=self._selection.settings.max_tokens,
        )

    def _overhead(self, system: str, specs: Sequence[ToolSpec]) -> int:
        described = 0 if self._is_text else sum(len(str(spec)) for spec in specs)
        return len(system) + described

    def _compact(self, budget: int, overhead: int) -> bool:
        record = self._session.record
        marks = advance(
            record.history,
            record.marks,
            budget=budget,
            overhead_characters=overhead,
            characters_per_token=self._session.characters_per_token,
        )
        if marks == record.marks:
            return False
        record.marks = marks
        log.info("compaction applied", results=marks.results, prose=marks.prose, budget=budget)
        return True

    def _coped(self, error: EndpointError) -> bool:
        """Prepares another attempt, shorter or with tools as text; False where neither helps."""
        settings = self._selection.settings
        if error.is_context_exceeded:
            record = self._session.record
            now = estimate(
                project(record.history, record.marks),
                characters_per_token=self._session.characters_per_token,
            )
            return self._compact(int(now * _SHRINK), 0)
        if error.is_tools_refused and settings.tool_calls == "auto" and not self._is_text:
            self._session.text_only.add(self._selection.selector)
            log.warning("tools asked for in text", endpoint=settings.name, status=error.status)
            self._notice = f"({error}: tools are described in the text instead)\n\n"
            return True
        return False

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

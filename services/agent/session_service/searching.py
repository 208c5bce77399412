"""Searches: a second conversation with the model, which can only read, for one answer."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import acp

from services.agent.core.editor import Content
from services.agent.core.history import TextPart, UserTurn
from services.agent.core.modes import Effect
from services.agent.core.settings import AgentSettings
from services.agent.endpoints.endpoint import EndpointError, TokenUsage
from services.agent.endpoints.selection import Endpoints, UnknownModelError
from services.agent.session.search_session import SearchSession
from services.agent.session.session import AgentSession
from services.agent.session_service.opening import SessionOpening
from services.agent.tools.tool import Tool, ToolError, ToolOutcome
from services.agent.turn.dispatch import Dispatcher
from services.agent.turn.turn import PromptTurn

Progress = Callable[[Sequence[Content]], Awaitable[None]]

_SHOW_SECONDS = 0.5
_ANSWER_NOW = "That is all the room there is. Search no more; answer with what you have found."


class _Shown:
    """What a search says, on the card of the call that asked for it."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._text = ""
        self._last = float("-inf")

    async def add(self, text: str) -> None:
        self._text += text
        now = asyncio.get_running_loop().time()
        if now - self._last >= _SHOW_SECONDS:
            self._last = now
            await self._progress((acp.tool_content(acp.text_block(self._text)),))


class Searching:
    """Runs the searches of all sessions; there is no state but theirs."""

    def __init__(
        self,
        *,
        settings: AgentSettings,
        endpoints: Endpoints,
        opening: SessionOpening,
        tools: Sequence[Tool],
    ) -> None:
        self._settings = settings
        self._endpoints = endpoints
        self._opening = opening
        self._tools = tuple(tool for tool in tools if tool.effect is Effect.READ)

    async def run(
        self, session: AgentSession, task: str, *, call_id: str, progress: Progress
    ) -> tuple[ToolOutcome, TokenUsage]:
        """Searches within a turn of a session, and returns the answer and what it took.

        Its calls are shown as cards that name the call they belong to. Where rounds or tokens
        run out, the model is asked once more for what it has found. Cancelling ends all of it.

        Raises:
            ToolError: the model could not be asked, or said nothing.
        """
        editor = session.editor.only_cards(call_id, _Shown(progress).add)
        inner = SearchSession(session, editor)
        inner.extend(UserTurn(parts=(TextPart(task),)))
        searching = self._turn(inner, self._tools, rounds=self._settings.search_rounds)
        try:
            stop = await searching.run()
            answer, usage = searching.said, searching.usage
            if stop == "max_turn_requests":
                inner.extend(UserTurn(parts=(TextPart(_ANSWER_NOW),)))
                answering = self._turn(inner, (), rounds=1)
                await answering.run()
                answer, usage = answering.said or answer, usage + answering.usage
        except (EndpointError, UnknownModelError) as error:
            raise ToolError(f"the search broke off: {error}") from error
        if not answer.strip():
            raise ToolError("the search ended without an answer; search yourself")
        return ToolOutcome(answer), usage

    def _turn(self, inner: SearchSession, tools: Sequence[Tool], *, rounds: int) -> PromptTurn:
        return PromptTurn(
            session=inner,
            endpoints=self._endpoints,
            tools=tools,
            dispatcher=Dispatcher(
                inner,
                environment=self._opening.environment,
                output_bytes=self._settings.output_bytes,
                bash_seconds=self._settings.bash_seconds,
                set_mode=_cannot,
                search=_cannot,
            ),
            prepare=lambda: self._opening.prepare_search(inner),
            max_rounds=rounds,
            max_tokens=self._settings.search_tokens,
        )


async def _cannot(*_: object) -> ToolOutcome:
    raise ToolError("a search can only read")

"""One prompt: rounds of asking the model and running its tools, each saved before the next."""

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Sequence

import acp
import acp.schema
import structlog

from services.agent.core.history import AssistantTurn, ResultsTurn, ToolResult
from services.agent.core.text import one_line
from services.agent.endpoints.endpoint import FinishReason, TokenUsage
from services.agent.endpoints.selection import Endpoints, Selection
from services.agent.session.replay import identified
from services.agent.session.session import AgentSession
from services.agent.tools.builtin import offered
from services.agent.tools.tool import Tool
from services.agent.turn.ask import PromptBuilder, RoundRequest
from services.agent.turn.dispatch import CANCELLED, LOST, Dispatcher
from services.agent.turn.repeats import MOST, Repeats
from services.backplane.timeouts import timeout

log = structlog.get_logger(__name__)

_STOPS: dict[FinishReason, acp.schema.StopReason] = {
    FinishReason.END: "end_turn",
    FinishReason.MAX_TOKENS: "max_tokens",
    FinishReason.REFUSAL: "refusal",
}

_LAST_UPDATES_SECONDS = 2.0
_REASON_CHARACTERS = 200


class PromptTurn:
    """Runs one prompt of a session whose user turn is already in the history.

    Args:
        prepare: called at the top of every round; returns what builds that round's system
            prompt from the mode and the rules files of that moment.
        max_tokens: read and written in all rounds, after which there is no further one.
    """

    def __init__(
        self,
        *,
        session: AgentSession,
        endpoints: Endpoints,
        tools: Sequence[Tool],
        dispatcher: Dispatcher,
        prepare: Callable[[], Awaitable[PromptBuilder]],
        max_rounds: int,
        max_tokens: int | None = None,
    ) -> None:
        self._session = session
        self._endpoints = endpoints
        self._builtin = tools
        self._dispatcher = dispatcher
        self._prepare = prepare
        self._max_rounds = max_rounds
        self._max_tokens = max_tokens
        self._repeats = Repeats()
        self.usage = TokenUsage()
        self.said = ""  # by the model, in its last answer

    async def run(self) -> acp.schema.StopReason:
        """Saves the user's turn, then goes round until the model calls no more tools.

        Whatever ends it early, the history keeps the part of the round that happened, every
        call with a result; saving that last part is left to the caller.

        Raises:
            EndpointError: the model could not be asked or broke off.
            UnknownModelError: there is no model to ask.
        """
        await self._session.save()
        for number in range(1, self._max_rounds + 1):
            stop = await self._round(number)
            turns = len(self._session.record.history)
            log.info("prompt round complete; persisting", round=number, turns=turns)
            await self._session.save()
            if stop is not None:
                return stop
            if self._is_spent:
                return "max_turn_requests"
        await self._say(
            f"Stopped: this prompt has asked the model {self._max_rounds} times, the most that"
            " `max_rounds` allows. Send another prompt, such as `go on`, to continue."
        )
        return "max_turn_requests"

    @property
    def _is_spent(self) -> bool:
        used = self.usage.input_tokens + self.usage.output_tokens
        return self._max_tokens is not None and used >= self._max_tokens

    async def _say(self, text: str) -> None:
        """Tells the user why a turn ends that the model did not end, and keeps it."""
        self._session.extend(AssistantTurn(text=text))
        await self._session.save()
        await self._session.editor.update(
            identified(acp.update_agent_message_text(text), str(uuid.uuid4()))
        )

    async def _round(self, number: int) -> acp.schema.StopReason | None:
        """Runs one round; returns why to stop, None to go on."""
        session = self._session
        prompt = await self._prepare()
        tools = (*self._builtin, *await session.mcp.tools())
        for name in session.mcp.take_failed():
            session.tell_once(f"The MCP server {name} could not be reached: it lends no tools.")
        for name in session.mcp.take_ended():
            session.tell_once(f"The MCP server {name} has ended: its tools are gone.")
        selection = await self._endpoints.select(session.record.model)
        self._dispatcher.fit(selection.context_window, session.characters_per_token)
        turns = len(session.record.history)
        log.info("prompt round: streaming", round=number, of=self._max_rounds, history_turns=turns)
        shown = offered(tools, session.mode)
        asked = RoundRequest(session=session, selection=selection, tools=shown, prompt=prompt)
        try:
            await asked.stream()
        except BaseException:
            await self._keep(asked.reply.turn(), [])
            raise
        answer = asked.reply.turn()
        self.said = answer.text
        by_name = {tool.spec.name: tool for tool in tools}
        results = await self._dispatch(answer, by_name)
        finished = asked.reply.finished
        assert finished is not None
        self.usage += asked.summaries
        await self._report(selection, finished.usage)
        for call, result in zip(answer.calls, results, strict=True):
            if self._repeats.add(call, result, by_name):
                known = call.name if call.name in by_name else "unknown"
                log.warning("stopped in a loop", tool=known, times=MOST)
                name = call.name or "an unreadable call"
                await self._say(
                    f"Stopped: the model made the same failing call `{name}` {MOST} times."
                    f" It fails with: {one_line(result.text, _REASON_CHARACTERS)}"
                )
                return "end_turn"
        return None if answer.calls else _STOPS[finished.stop]

    async def _dispatch(
        self, answer: AssistantTurn, tools: dict[str, Tool]
    ) -> Sequence[ToolResult]:
        """Runs the calls in order and adds the round to the history, come what may."""
        results: list[ToolResult] = []
        try:
            for call in answer.calls:
                if self._session.is_cancelled:  # even if a library swallowed the exception
                    raise asyncio.CancelledError
                results.append(await self._dispatcher.run(call, tools))
        finally:
            await self._keep(answer, results)
        return results

    async def _keep(self, answer: AssistantTurn, results: list[ToolResult]) -> None:
        """Adds an answer, and for each of its calls a result: endpoints refuse a call without."""
        if answer == AssistantTurn():
            return
        missing = answer.calls[len(results) :]
        reason = CANCELLED if self._session.is_cancelled else LOST
        results += [ToolResult(call.id, call.name, reason, is_error=True) for call in missing]
        self._session.extend(answer)
        if results:
            self._session.extend(ResultsTurn(results=tuple(results)))
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with timeout(_LAST_UPDATES_SECONDS):
                for call in missing:
                    await self._session.editor.update(
                        acp.update_tool_call(call.id, status="failed")
                    )

    async def _report(self, selection: Selection, usage: TokenUsage | None) -> None:
        if usage is None:
            return
        self.usage += usage
        if selection.context_window is not None:
            await self._session.editor.update(
                acp.schema.UsageUpdate(
                    session_update="usage_update",
                    used=usage.input_tokens + usage.output_tokens,
                    size=selection.context_window,
                )
            )

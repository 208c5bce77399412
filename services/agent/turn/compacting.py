"""Makes room for the next request: leaves out old tool output, then summarises what is oldest.

Where no summary can be had, as much as is needed is left out of what the model sees.
"""

import asyncio
import contextlib

import acp
import structlog

from services.agent.answer.reply import Reply
from services.agent.core.history import TextPart, Turn, UserTurn
from services.agent.core.text import one_line
from services.agent.endpoints.endpoint import (
    EndpointError,
    Finished,
    FinishReason,
    ModelRequest,
    TokenUsage,
)
from services.agent.endpoints.selection import Selection
from services.agent.session.session import AgentSession
from services.agent.storage import summary
from services.agent.storage.compaction import Room, advance, estimate, prompt_budget
from services.agent.storage.projection import Marks, Summary

log = structlog.get_logger(__name__)

_TURNS_BETWEEN = 8  # from one summary to the next, where leaving out helps as well
_OVERHEAD_TOKENS = 512  # of the request for a summary
_FEWEST_TOKENS = 1024  # that are shown of a conversation whose window is not known


class NoSummaryError(Exception):
    """The model gave no summary that could be used; the message says why."""


class Compacting:
    """Keeps one session's conversation within the window of a model.

    Attributes:
        usage: tokens of the summaries that were asked for.
    """

    def __init__(self, session: AgentSession, selection: Selection) -> None:
        self._session = session
        self._selection = selection
        self.usage = TokenUsage()

    async def make_room(self, room: Room) -> bool:
        """Makes the next request fit, as far as it can; returns whether anything had to go."""
        record = self._session.record
        before = record.marks
        record.marks = advance(record.history, record.marks, room, is_only_results=True)
        rested = len(record.history) - self._session.summary_tried_at
        if self._is_over(room) and rested >= _TURNS_BETWEEN:
            await self._summarised(room)
        record.marks = advance(record.history, record.marks, room)
        if self._is_over(room):
            self._replace(room, record.marks.summary.said if record.marks.summary else "")
            record.marks = advance(record.history, record.marks, room)
        if record.marks == before:
            return False
        marks = record.marks
        log.info(
            "compaction applied",
            results=marks.results,
            prose=marks.prose,
            summarised=marks.start,
            budget=room.budget,
        )
        return True

    async def now(self, focus: str) -> str:
        """Summarises everything up to the last turn, as the user asks; returns what to tell them.

        Args:
            focus: what is to be kept above all; may be empty.
        """
        history = self._session.record.history
        room = self.room(overhead=0)
        before = room.size(history, self._session.record.marks)
        through = len(history) - 1
        if through <= self._session.record.marks.start:
            return "There is nothing to summarise."
        try:
            said = await self._ask(room, through, focus)
        except (NoSummaryError, EndpointError) as error:
            marks = self._session.record.marks
            self._session.record.marks = Marks(
                max(through, marks.results), marks.prose, marks.summary
            )
            told = f"No summary could be made ({error}); old tool output is left out instead."
        else:
            self._replace(room, said, through)
            told = f"Summarised: {through} turns.\n\n{said}"
        after = room.size(history, self._session.record.marks)
        return f"{told}\n\nAbout {before} tokens before, {after} after."

    def room(self, *, overhead: int) -> Room:
        """Returns the room that the model's window leaves; a large one where it is not known."""
        window = self._selection.context_window or 2**20
        return Room.of(
            window,
            self._selection.settings.max_tokens,
            overhead=overhead,
            characters_per_token=self._session.characters_per_token,
        )

    def _is_over(self, room: Room) -> bool:
        return not room.holds(self._session.record.history, self._session.record.marks)

    async def _summarised(self, room: Room) -> None:
        """Has the oldest turns summarised, if they are more than a summary is; tells the user."""
        record = self._session.record
        through = summary.cut_at(record.history, record.marks, room)
        replaced = room.size(record.history, record.marks) - room.size(
            record.history, record.marks.summarised(Summary(through, "", ""))
        )
        if replaced < 2 * summary.longest_part(room) / room.characters_per_token:
            return
        await self._tell("The conversation fills the model's window: its beginning is summarised.")
        try:
            said = await self._ask(room, through, "")
        except (NoSummaryError, EndpointError) as error:
            log.warning("no summary", kind=type(error).__name__)
            await self._tell(f"No summary could be made ({error}): its oldest parts are left out.")
            return
        self._replace(room, said, through)
        size = estimate([], len(said), characters_per_token=room.characters_per_token)
        await self._tell(f"{through} turns are a summary of about {size} tokens now.")
        await self._session.save()

    def _replace(self, room: Room, said: str, through: int | None = None) -> None:
        """Lets a summary stand for the oldest turns, and the facts for them in any case."""
        record = self._session.record
        if through is None:
            through = summary.cut_at(record.history, record.marks, room)
        facts = summary.facts(record.history, through, summary.longest_part(room))
        record.marks = record.marks.summarised(Summary(through, said, facts))

    async def _ask(self, room: Room, through: int, focus: str) -> str:
        """Asks the model for a summary of the turns before an index.

        Raises:
            EndpointError: the endpoint refused or failed.
            NoSummaryError: it is empty, or longer than there is room for.
        """
        self._session.summary_tried_at = len(self._session.record.history)
        longest = summary.longest_part(room)
        window = self._selection.context_window
        tokens = prompt_budget(window, self._answer_tokens) if window else room.budget // 2
        limit = max(tokens - _OVERHEAD_TOKENS, _FEWEST_TOKENS) * room.characters_per_token
        record = self._session.record
        asked = summary.question(
            record.history, record.marks, through, room=room, limit=int(limit), focus=focus
        )
        reply = await self._answered(UserTurn((TextPart(asked),)))
        said = reply.turn().text.strip()
        finished = reply.finished
        if finished is None or finished.stop is not FinishReason.END:
            raise NoSummaryError("it reached the model's token limit")
        if not said or len(said) > longest:
            raise NoSummaryError("it is too long" if said else "the answer was empty")
        return said

    @property
    def _answer_tokens(self) -> int:
        return self._selection.settings.max_tokens or summary.ANSWER_TOKENS

    async def _answered(self, turn: Turn) -> Reply:
        request = ModelRequest(
            model=self._selection.model,
            system=summary.SYSTEM,
            turns=[turn],
            max_tokens=self._answer_tokens,
        )
        reply = Reply(tools={}, is_text_format=False, new_id=lambda wanted: wanted)
        async with contextlib.aclosing(self._selection.endpoint.stream(request)) as events:
            async for event in events:
                if self._session.is_cancelled:  # even if a library swallowed the exception
                    raise asyncio.CancelledError
                for _ in reply.take(event):
                    pass
                if isinstance(event, Finished) and event.usage is not None:
                    self.usage += event.usage
        return reply

    async def _tell(self, text: str) -> None:
        update = acp.update_agent_thought_text(f"({one_line(text, 300)})\n\n")
        await self._session.editor.update(update)

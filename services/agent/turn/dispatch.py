"""Runs one tool call: gate, permission, effect, and what the editor sees of it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import acp
import acp.schema
import structlog

from services.agent.core.editor import Content, EditorError
from services.agent.core.history import ToolCall, ToolResult
from services.agent.core.modes import Mode, Verdict, decide
from services.agent.core.permissions import Action, allows, allows_private, grant, lasting
from services.agent.core.plan_dir import resolve
from services.agent.core.text import one_line
from services.agent.core.web_site import site
from services.agent.session.session import AgentSession
from services.agent.tools.tool import Tool, ToolContext, ToolError, ToolOutcome
from services.agent.turn.permission_options import ALLOW, ALWAYS, LASTING, permission_options
from services.backplane.timeouts import timeout

log = structlog.get_logger(__name__)

CANCELLED = "ERROR: cancelled by the user before it finished"
LOST = "ERROR: the connection was lost before this call could run"
_LAST_UPDATE_SECONDS = 2.0
_LEAST_OUTPUT_BYTES = 1024


Search = Callable[
    [str, str, Callable[[Sequence[Content]], Awaitable[None]]], Awaitable[ToolOutcome]
]


class Dispatcher:
    """Runs the calls of one session, one after another.

    Args:
        search: answers a question, on behalf of the call of an id, whose card it may fill.
    """

    def __init__(
        self,
        session: AgentSession,
        *,
        environment: Mapping[str, str],
        output_bytes: int,
        bash_seconds: float,
        set_mode: Callable[[Mode], Awaitable[object]],
        search: Search,
    ) -> None:
        self._session = session
        self._environment = environment
        self._output_bytes = self._most_output_bytes = output_bytes
        self._bash_seconds = bash_seconds
        self._set_mode = set_mode
        self._search = search

    def fit(self, window: int | None, characters_per_token: float) -> None:
        """Caps what a tool prints at a quarter of the window, in tokens; None: it is not known."""
        if window is not None:
            cap = max(_LEAST_OUTPUT_BYTES, int(window * characters_per_token) // 4)
            self._output_bytes = min(self._most_output_bytes, cap)

    async def run(self, call: ToolCall, tools: Mapping[str, Tool]) -> ToolResult:
        """Runs a call and returns its result; only cancellation is raised."""
        known = call.name if call.name in tools else "unknown"  # any other is the model's words
        log.info("dispatch tool", tool=known, tool_call_id=call.id)
        is_error = True
        try:
            outcome = await self._outcome(call, tools)
            is_error = outcome.is_error
            await self.finish(call, outcome)
        except asyncio.CancelledError:
            await self._last_update(call)
            raise
        finally:
            log.info("dispatch tool complete", tool_call_id=call.id, is_error=is_error)
        text = f"ERROR: {outcome.text}" if outcome.is_error else outcome.text
        return ToolResult(call.id, call.name, text, outcome.is_error, outcome.pictures)

    async def _outcome(self, call: ToolCall, tools: Mapping[str, Tool]) -> ToolOutcome:
        if call.arguments is None:
            return ToolOutcome(call.note, is_error=True)
        tool = tools.get(call.name)
        if tool is None:
            text = f"there is no tool {call.name!r}; there are {', '.join(tools)}"
            return ToolOutcome(text, is_error=True)
        try:
            return await _RunningCall(self, call, tool, call.arguments).run()
        except ToolError as error:
            return ToolOutcome(str(error), is_error=True)
        except (ConnectionError, EditorError):
            raise
        except Exception as error:
            log.exception("tool failed", tool=call.name, tool_call_id=call.id)
            return ToolOutcome(f"{call.name} failed: {type(error).__name__}", is_error=True)

    async def finish(self, call: ToolCall, outcome: ToolOutcome) -> None:
        """Closes a call's card, or leaves it open where what was started goes on."""
        if outcome.is_going_on:
            return
        content = outcome.content
        if content is None:
            pictures = (acp.image_block(each.data, each.mime_type) for each in outcome.pictures)
            text = acp.tool_content(acp.text_block(outcome.text))
            content = (text, *map(acp.tool_content, pictures))
        elif outcome.is_error:
            content = (*content, acp.tool_content(acp.text_block(outcome.text)))
        await self._session.editor.update(
            acp.update_tool_call(
                call.id,
                title=f"{call.name or 'unreadable tool call'}" if call.arguments is None else None,
                status="failed" if outcome.is_error else "completed",
                content=[*_repair_note(call), *content],
                locations=_locations(outcome.locations) or None,
                raw_output=outcome.text,
            )
        )

    async def _last_update(self, call: ToolCall) -> None:
        """Tells the editor that the call is over, if it still listens."""
        update = acp.update_tool_call(call.id, status="failed")
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with timeout(_LAST_UPDATE_SECONDS):
                await self._session.editor.update(update)

    def context(self, call: "_RunningCall") -> ToolContext:
        """Returns what a running tool may use."""
        return ToolContext(
            workspace=self._session.workspace,
            editor=self._session.editor,
            permit=call.permit,
            permit_private=call.permit_private,
            progress=call.progress,
            finish=call.finish,
            background=self._session.background,
            environment=self._environment,
            output_bytes=self._output_bytes,
            bash_seconds=self._bash_seconds,
            keep=self._keep,
            mode=lambda: self._session.mode,
            set_mode=self._set_mode,
            choose=call.choose,
            search=lambda task: self._search(task, call.id, call.progress),
        )

    def _keep(self, target: Path, is_written: bool) -> None:  # noqa: FBT001 - as ToolContext has it
        checkpoints, prompt = self._session.checkpoints, self._session.prompts()[-1]
        (checkpoints.after if is_written else checkpoints.before)(prompt, target)

    @property
    def session(self) -> AgentSession:
        """The session whose calls these are."""
        return self._session


class _RunningCall:
    """One call on its way; the mode is read anew at every decision."""

    def __init__(
        self, dispatcher: Dispatcher, call: ToolCall, tool: Tool, arguments: dict[str, Any]
    ) -> None:
        self.id = call.id
        self._dispatcher = dispatcher
        self._session = dispatcher.session
        self._call = call
        self._tool = tool
        self._arguments = arguments
        self._approved: set[Path | None] = set()  # what the user has said yes to for this call
        self._context = dispatcher.context(self)

    async def run(self) -> ToolOutcome:
        preview = self._tool.preview(self._arguments, self._session.workspace)
        await self._update(
            title=preview.title,
            locations=_locations(preview.locations),
            raw_input=self._arguments,
            content=list(_repair_note(self._call)) or None,
        )
        verdict, target = self._decide(preview.target)
        if verdict is Verdict.ASK:
            await self._ask(target)
        await self._update(status="in_progress")
        return await self._tool.run(self._arguments, self._context)

    def _decide(self, path: Path | None) -> tuple[Verdict, Path | None]:
        """Decides by the mode and the links on disk of this moment; raises ToolError."""
        target = None
        if path is not None:
            try:
                target = resolve(path)
            except (OSError, ValueError) as error:
                raise ToolError(f"{str(path)[:200]} is no path: {error}") from error
        decision = decide(
            mode=self._session.mode,
            effect=self._tool.effect,
            tool=self._tool.spec.name,
            target=target,
            places=self._session.places(),
        )
        if decision.verdict is Verdict.REFUSE:
            raise ToolError(decision.reason)
        if decision.verdict is Verdict.ASK and (
            target in self._approved
            or self._grant(target) in self._session.granted
            or allows(
                self._session.permissions.rules(), self._action(target), self._session.places()
            )
        ):
            return Verdict.ALLOW, target
        return decision.verdict, target

    def permit(self, path: Path | None) -> Path | None:
        """Asks the mode once more, right before an effect; returns the resolved path.

        Raises:
            ToolError: the mode or the path is another than the one that was agreed to.
        """
        verdict, target = self._decide(path)
        if verdict is Verdict.ASK:
            raise ToolError("the mode or the path changed in the meantime; try again")
        return target

    def permit_private(self, url: str) -> None:
        """Raises ToolError unless a rule permits a URL whose address is not a public one."""
        permissions = self._session.permissions
        if not allows_private(permissions.rules(), url):
            raise ToolError(
                f"{site(url)} has a private address, which is fetched only where the user has"
                f" written the line `fetch-private {site(url)}` into {permissions.path}"
            )

    async def _ask(self, target: Path | None) -> None:
        content = await self._tool.diff(self._arguments, self._context)
        rule = lasting(self._action(target), self._session.places())
        choice = await self.choose(permission_options(rule), content)
        if choice == ALWAYS.option_id:
            self._session.granted.add(self._grant(target))
        elif choice == LASTING and rule:
            self._session.permissions.add(rule)
            self._session.granted.add(self._grant(target))
        elif choice != ALLOW.option_id:
            raise ToolError("the user refused this call")
        if await self._tool.diff(self._arguments, self._context) != content:
            raise ToolError("what it would change has changed while the user was asked; look anew")
        self._approved.add(target)

    async def choose(
        self, options: Sequence[acp.schema.PermissionOption], content: Sequence[Content]
    ) -> str | None:
        """Lets the user choose what becomes of the call; None when they dismiss the question."""
        preview = self._tool.preview(self._arguments, self._session.workspace)
        update = acp.schema.ToolCallUpdate(
            tool_call_id=self._call.id,
            title=preview.title,
            kind=self._tool.kind,
            status="pending",
            content=list(content) or None,
            locations=_locations(preview.locations),
            raw_input=self._arguments,
        )
        try:
            return await self._session.editor.choose(update, options)
        except EditorError as error:
            raise ToolError(str(error)) from error

    def _action(self, target: Path | None) -> Action:
        return Action(self._tool.effect, self._tool.spec.name, self._arguments, target)

    def _grant(self, target: Path | None) -> str:
        return grant(self._action(target), self._session.places())

    async def progress(self, content: Sequence[Content]) -> None:
        """Shows content on the call's card while the tool runs."""
        await self._update(content=[*_repair_note(self._call), *content])

    async def finish(self, outcome: ToolOutcome) -> None:
        """Closes the call's card after the call."""
        await self._dispatcher.finish(self._call, outcome)

    async def _update(self, **changes: Any) -> None:
        await self._session.editor.update(acp.update_tool_call(self._call.id, **changes))


def _locations(
    places: Sequence[tuple[Path, int | None]],
) -> list[acp.schema.ToolCallLocation]:
    return [acp.schema.ToolCallLocation(path=str(path), line=line) for path, line in places]


def _repair_note(call: ToolCall) -> tuple[Content, ...]:
    """Shows what was mended in a call, so that nobody wonders why it ran differently."""
    if not call.note or call.arguments is None:
        return ()
    return (acp.tool_content(acp.text_block(f"(repaired: {one_line(call.note, 200)})")),)

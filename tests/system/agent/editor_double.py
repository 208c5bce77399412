"""An editor: the SDK's client side, with answers that a test decides."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import acp
import acp.schema

Decide = Callable[[acp.schema.ToolCallUpdate], Awaitable[str | None]]


async def allow(_: acp.schema.ToolCallUpdate) -> str | None:
    return "allow"


async def reject(_: acp.schema.ToolCallUpdate) -> str | None:
    return "reject"


class EditorDouble:
    """Records every update; asks `decide` for permissions; serves files and terminals."""

    def __init__(self, decide: Decide = allow) -> None:
        self.decide = decide
        self.updates: list[Any] = []
        self.asked: list[acp.schema.ToolCallUpdate] = []
        self.read: list[str] = []
        self.written: list[str] = []
        self.terminals: dict[str, asyncio.subprocess.Process] = {}
        self.killed: list[str] = []
        self.released: list[str] = []
        self.changed = asyncio.Condition()

    async def session_update(self, session_id: str, update: Any, **kwargs: Any) -> None:
        async with self.changed:
            self.updates.append(update)
            self.changed.notify_all()

    async def seen(self, predicate: Callable[[Any], bool]) -> Any:
        """Waits for an update that satisfies the predicate."""
        async with asyncio.timeout(60), self.changed:
            await self.changed.wait_for(lambda: any(map(predicate, self.updates)))
        return next(filter(predicate, self.updates))

    def text(self) -> str:
        return "".join(
            each.content.text
            for each in self.updates
            if isinstance(each, acp.schema.AgentMessageChunk)
        )

    def statuses(self, call_id: str) -> list[str]:
        calls = (acp.schema.ToolCallStart, acp.schema.ToolCallProgress)
        found = [e for e in self.updates if isinstance(e, calls) and e.tool_call_id == call_id]
        return [each.status for each in found if each.status]

    async def request_permission(
        self, session_id: str, tool_call: Any, options: Any, **kwargs: Any
    ) -> acp.RequestPermissionResponse:
        async with self.changed:
            self.asked.append(tool_call)
            self.changed.notify_all()
        choice = await self.decide(tool_call)
        outcome: Any = (
            acp.schema.DeniedOutcome(outcome="cancelled")
            if choice is None
            else acp.schema.AllowedOutcome(outcome="selected", option_id=choice)
        )
        return acp.RequestPermissionResponse(outcome=outcome)

    async def was_asked(self, count: int = 1) -> None:
        async with asyncio.timeout(60), self.changed:
            await self.changed.wait_for(lambda: len(self.asked) >= count)

    async def read_text_file(
        self, session_id: str, path: str, line: Any = None, limit: Any = None, **kwargs: Any
    ) -> acp.ReadTextFileResponse:
        self.read.append(path)
        try:
            return acp.ReadTextFileResponse(content=await asyncio.to_thread(Path(path).read_text))
        except OSError as error:
            raise acp.RequestError.resource_not_found(path) from error

    async def write_text_file(
        self, session_id: str, path: str, content: str, **kwargs: Any
    ) -> acp.WriteTextFileResponse:
        self.written.append(path)
        await asyncio.to_thread(Path(path).write_text, content)
        return acp.WriteTextFileResponse()

    async def create_terminal(
        self,
        session_id: str,
        command: str,
        args: Any = None,
        env: Any = None,
        cwd: Any = None,
        output_byte_limit: Any = None,
        **kwargs: Any,
    ) -> acp.CreateTerminalResponse:
        process = await asyncio.create_subprocess_exec(
            command, *(args or ()), cwd=cwd, stdout=asyncio.subprocess.PIPE
        )
        name = f"t{len(self.terminals)}"
        self.terminals[name] = process
        return acp.CreateTerminalResponse(terminal_id=name)

    async def terminal_output(
        self, session_id: str, terminal_id: str, **kwargs: Any
    ) -> acp.TerminalOutputResponse:
        process = self.terminals[terminal_id]
        assert process.stdout is not None
        output = await process.stdout.read()
        return acp.TerminalOutputResponse(output=output.decode(), truncated=False)

    async def wait_for_terminal_exit(
        self, session_id: str, terminal_id: str, **kwargs: Any
    ) -> acp.WaitForTerminalExitResponse:
        code = await self.terminals[terminal_id].wait()
        return acp.WaitForTerminalExitResponse(exit_code=code)

    async def kill_terminal(self, session_id: str, terminal_id: str, **kwargs: Any) -> None:
        self.killed.append(terminal_id)
        self.terminals[terminal_id].kill()

    async def release_terminal(self, session_id: str, terminal_id: str, **kwargs: Any) -> None:
        self.released.append(terminal_id)

    async def ext_method(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        raise acp.RequestError.method_not_found(method)

    async def ext_notification(self, method: str, params: dict[str, Any]) -> None:
        return

    async def create_elicitation(self, message: str, mode: Any, **kwargs: Any) -> Any:
        raise acp.RequestError.method_not_found("elicitation/create")

    async def complete_elicitation(self, elicitation_id: str, **kwargs: Any) -> None:
        return

    def on_connect(self, conn: Any) -> None:
        return

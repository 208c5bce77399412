"""The protocol's Python SDK: one session of `cortex acp`, check by check."""

import contextlib
import os
import pathlib
import shlex

import acp
import acp.schema

from services.cli.sdk_checks.suite import Suite

suite = Suite("agent-client-protocol (Python)", package="agent-client-protocol")
PROJECT = pathlib.Path(os.environ["CORTEX_PROJECT"])


class Editor(acp.Client):
    """Says yes to everything, by the first option, and remembers what it is shown."""

    def __init__(self):
        self.updates = []
        self.asked = []

    async def request_permission(self, session_id, tool_call, options, **kwargs):
        self.asked.append(tool_call)
        outcome = acp.schema.AllowedOutcome(outcome="selected", option_id=options[0].option_id)
        return acp.RequestPermissionResponse(outcome=outcome)

    async def session_update(self, session_id, update, **kwargs):
        self.updates.append(update)

    def text(self):
        chunks = [each for each in self.updates if isinstance(each, acp.schema.AgentMessageChunk)]
        return "".join(each.content.text for each in chunks)

    def of(self, kind):
        return [each for each in self.updates if isinstance(each, kind)]


class Session:
    """The session that all checks share."""

    def __init__(self):
        self.editor = Editor()
        self.stack = contextlib.AsyncExitStack()
        self.connection = None
        self.id = ""

    async def open(self):
        command = shlex.split(os.environ["CORTEX_AGENT"])
        spawned = acp.spawn_agent_process(self.editor, *command, env=dict(os.environ), cwd=PROJECT)
        self.connection, _ = await self.stack.enter_async_context(spawned)
        await self.connection.initialize(acp.PROTOCOL_VERSION)
        self.id = (await self.connection.new_session(cwd=str(PROJECT), mcp_servers=[])).session_id

    async def prompt(self, text):
        self.editor.updates.clear()
        prompt = [acp.text_block(text)]
        return await self.connection.prompt(session_id=self.id, prompt=prompt)


session = Session()


@suite.check("tools")
async def an_edit_is_asked_for_and_done(_):
    await session.open()
    response = await session.prompt("change the greeting")
    assert response.stop_reason == "end_turn"
    assert (PROJECT / "greeting.txt").read_text() == "hello fleet\n"
    assert len(session.editor.asked) == 1
    assert session.editor.text() == "Reading.The greeting is changed."


@suite.check("tools")
async def a_plan_is_shown_and_plan_mode_is_left_by_the_dialog(_):
    await session.connection.set_session_mode(session_id=session.id, mode_id="plan")
    response = await session.prompt("plan a farewell")
    plan = session.editor.of(acp.schema.AgentPlanUpdate)
    modes = session.editor.of(acp.schema.CurrentModeUpdate)
    assert response.stop_reason == "end_turn"
    assert [each.content for each in plan[-1].entries] == ["Write farewell.txt"]
    assert session.editor.asked[-1].kind == "switch_mode"
    assert [each.current_mode_id for each in modes] == ["accept-edits"]
    assert (PROJECT / "farewell.txt").read_text() == "bye\n"


@suite.check("tools")
async def undo_takes_back_the_last_prompt_and_no_other(_):
    await session.prompt("/undo")
    assert not (PROJECT / "farewell.txt").exists()
    assert (PROJECT / "greeting.txt").read_text() == "hello fleet\n"
    assert "1 prompt taken back" in session.editor.text()


@suite.check("basics")
async def a_session_goes_on_after_compaction(_):
    compacted = await session.prompt("/compact")
    told = session.editor.text()
    response = await session.prompt("what did we do?")
    assert (compacted.stop_reason, response.stop_reason) == ("end_turn", "end_turn")
    assert told
    assert session.editor.text() == "We changed the greeting."
    await session.stack.aclose()


if __name__ == "__main__":
    suite.main()

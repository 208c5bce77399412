"""Turns that are cancelled, or cut by the end of the process or of its input."""

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path

import acp
import acp.schema
import pytest

from tests.system.agent.asking import EDIT, READ, prompt
from tests.system.agent.conftest import WIRES, Place
from tests.system.agent.editor_double import EditorDouble
from tests.system.agent.scripted_endpoint import Answer, Call, ScriptedEndpoint


def is_running(pid: int) -> bool:
    """Whether a process is there and not only waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("wire", WIRES)
async def test_cancel_in_mid_stream_keeps_the_part_that_came(place: Place, wire: str):
    answers = [Answer(text="Once upon", hold=asyncio.Event()), Answer(text="Again.")]
    async with (
        ScriptedEndpoint(*answers) as endpoint,
        place.agent(endpoint, EditorDouble(), wire=wire) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        asking = asyncio.create_task(prompt(running, session.session_id, "tell"))
        await running.editor.seen(lambda _: running.editor.text() == "Once upon")
        await running.connection.cancel(session_id=session.session_id)
        cancelled = await asking
        again = await prompt(running, session.session_id, "go on")

    assert "cancelled" == cancelled.stop_reason
    assert "end_turn" == again.stop_reason
    assert 1 == endpoint.closed_early
    history = place.record(session.session_id)["history"]
    assert ["user", "assistant", "user", "assistant"] == [turn["type"] for turn in history]
    assert "Once upon" == history[1]["text"]


@pytest.mark.parametrize("where", ["headers", "permission", "command", "terminal"])
async def test_cancel_is_observed_wherever_the_turn_waits(place: Place, where: str):
    async def never(_: object) -> str | None:
        await asyncio.Event().wait()
        return None

    pidfile = place.home / "pid"
    script = f"sleep 600 & echo $! $$ > {pidfile}.new; mv {pidfile}.new {pidfile}; wait"
    bash = Call("bash", {"command": script}, "c1")
    answer = {
        "headers": Answer(hold_before=asyncio.Event()),
        "permission": Answer(calls=[EDIT]),
    }.get(where, Answer(calls=[bash]))
    editor = EditorDouble(never if where == "permission" else EditorDouble().decide)
    async with (
        ScriptedEndpoint(answer) as endpoint,
        place.agent(endpoint, editor, terminals=where == "terminal") as running,
    ):
        session = await running.connection.new_session(str(place.project))
        asking = asyncio.create_task(prompt(running, session.session_id))
        await endpoint.requested(1)
        if where == "permission":
            await editor.was_asked()
        if where in {"command", "terminal"}:
            async with asyncio.timeout(60):
                while not pidfile.exists():
                    await asyncio.sleep(0.01)
        await running.connection.cancel(session_id=session.session_id)
        response = await asking

    assert "cancelled" == response.stop_reason
    if where == "command":
        for pid in map(int, pidfile.read_text().split()):
            assert not is_running(pid)
    if where == "terminal":
        assert (["t0"], ["t0"]) == (editor.killed, editor.released)
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pidfile.read_text().split()[0]), signal.SIGKILL)
    history = place.record(session.session_id)["history"]
    calls = sum(len(turn.get("calls", ())) for turn in history)
    assert calls == sum(len(turn.get("results", ())) for turn in history)


async def test_a_new_prompt_cancels_the_one_in_flight(place: Place):
    answers = [Answer(text="Old", hold=asyncio.Event()), Answer(text="New.")]
    async with (
        ScriptedEndpoint(*answers) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        old = asyncio.create_task(prompt(running, session.session_id, "one"))
        await running.editor.seen(lambda _: running.editor.text() == "Old")
        new = await prompt(running, session.session_id, "two")

    assert ("cancelled", "end_turn") == ((await old).stop_reason, new.stop_reason)
    history = place.record(session.session_id)["history"]
    texts = [turn.get("text") or turn["parts"][0]["text"] for turn in history]
    assert ["one", "Old", "two", "New."] == texts


async def test_a_killed_agent_loses_only_the_round_in_progress(place: Place):
    answers = [
        Answer(text="Reading.", calls=[READ]),
        Answer(text="half an answ", hold=asyncio.Event()),
        Answer(text="Done."),
    ]
    async with (
        ScriptedEndpoint(*answers) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        asking = asyncio.create_task(prompt(running, session.session_id))
        await running.editor.seen(lambda _: "half" in running.editor.text())
        running.process.kill()
        with pytest.raises((ConnectionError, acp.RequestError)):
            await asking
        before = place.record(session.session_id)
        async with place.agent(endpoint, EditorDouble()) as second:
            listed = await second.connection.list_sessions(cwd=str(place.project))
            await second.connection.load_session(str(place.project), session.session_id)
            await second.editor.seen(lambda u: isinstance(u, acp.schema.AvailableCommandsUpdate))
            replay = list(second.editor.updates)
            response = await prompt(second, session.session_id, "go on")

    assert ["user", "assistant", "results"] == [turn["type"] for turn in before["history"]]
    assert [session.session_id] == [each.session_id for each in listed.sessions]
    assert "change the greeting" == listed.sessions[0].title
    kinds = [type(each).__name__ for each in replay]
    assert [
        "UserMessageChunk", "AgentMessageChunk", "ToolCallStart", "ToolCallProgress",
        "AvailableCommandsUpdate",
    ] == kinds  # fmt: skip
    assert ("call_read", "completed") == (replay[3].tool_call_id, replay[3].status)
    assert "end_turn" == response.stop_reason
    after = place.record(session.session_id)
    assert before["created_at"] == after["created_at"]
    assert "half an answ" not in json.dumps(after)


async def test_closing_the_input_in_mid_stream_saves_the_session(place: Place):
    async with ScriptedEndpoint(Answer(text="half", hold=asyncio.Event())) as endpoint:
        async with place.agent(endpoint, EditorDouble()) as running:
            session = await running.connection.new_session(str(place.project))
            asking = asyncio.create_task(prompt(running, session.session_id))
            await running.editor.seen(lambda _: running.editor.text() == "half")
        asking.cancel()

    assert 0 == running.process.returncode
    assert "half" == place.record(session.session_id)["history"][1]["text"]
    assert "agent stopped" == place.log()[-1]["event"]

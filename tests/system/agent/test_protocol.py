"""The protocol's messages; the harness holds each one of every test to the newest schema."""

import asyncio
from typing import Any

import acp
import acp.schema
import pytest

from tests.contract.acp.messages import Messages
from tests.system.agent.conftest import Place
from tests.system.agent.editor_double import EditorDouble
from tests.system.agent.scripted_endpoint import Answer, Call, ScriptedEndpoint

CALLS = [
    Call("read_file", {"path": "greeting.txt"}, "c1"),
    Call("write_file", {"path": "new.txt", "content": "x"}, "c2"),
    Call("bash", {"command": "true"}, "c3"),
    Call("update_plan", {"steps": [{"content": "look", "status": "completed"}]}, "c4"),
    Call("search_agent", {"task": "look"}, "c5"),
]
SLOW = Call("bash", {"command": "exec sleep 600"}, "c6")
ASKED = {
    "initialize", "session/new", "session/load", "session/list", "session/fork",
    "session/resume", "session/close", "session/delete", "session/set_mode",
    "session/set_config_option", "session/prompt",
    "fs/read_text_file", "fs/write_text_file", "session/request_permission", "terminal/create",
    "terminal/output", "terminal/wait_for_exit", "terminal/kill", "terminal/release",
}  # fmt: skip


async def test_every_message_of_a_whole_life_is_as_the_schema_says(place: Place):
    answers = [
        Answer(thought="Hm.", text="So.", calls=CALLS),
        Answer(text="Found."),
        Answer(text="Done."),
    ]
    async with (
        ScriptedEndpoint(*answers, Answer(calls=[SLOW])) as endpoint,
        place.agent(endpoint, EditorDouble(), files=True, terminals=True) as running,
    ):
        client, cwd = running.connection, str(place.project)
        session_id = (await client.new_session(cwd)).session_id
        await client.set_session_mode(session_id=session_id, mode_id="plan")
        await client.set_config_option(session_id=session_id, config_id="mode", value="default")
        prompt = [acp.text_block("go"), acp.resource_link_block("g", f"file://{cwd}/greeting.txt")]
        await client.prompt(session_id=session_id, prompt=prompt)
        slow = asyncio.create_task(client.prompt(session_id=session_id, prompt=prompt))
        await running.editor.seen(
            lambda u: getattr(u, "tool_call_id", "") == "c6" and "terminal" in str(u.content)
        )
        await client.cancel(session_id=session_id)
        cancelled = await slow
        await running.editor.terminals["t1"].communicate()
        await client.list_sessions(cwd=cwd)
        fork = await client.fork_session(session_id=session_id, cwd=cwd)
        await client.close_session(session_id=session_id)
        await client.load_session(cwd=cwd, session_id=session_id)
        await client.resume_session(cwd=cwd, session_id=fork.session_id)
        with pytest.raises(acp.RequestError):
            await client.load_session(cwd=cwd, session_id="no such")
        await client._conn.send_request("session/delete", {"sessionId": session_id})

    requested = {method for method, kind in running.messages.seen if kind == "Request"}
    answered = {method for method, kind in running.messages.seen if kind == "Response"}
    assert "cancelled" == cancelled.stop_reason
    assert (ASKED, ASKED) == (requested, answered)
    assert ("session/update", "Notification") in running.messages.seen
    assert ("session/cancel", "Notification") in running.messages.seen


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ({"id": 1, "result": {"stopReason": "bored"}}, "bored"),
        ({"id": 1, "result": {"stopReason": "end_turn", "mood": "good"}}, "mood"),
        ({"id": 1, "result": None}, "None is not of type"),
        ({"method": "session/update", "params": {"sessionId": "s"}}, "update"),
        ({"method": "session/sing", "params": {}}, "no Notification of session/sing"),
        ({"id": 1, "error": {"message": "no code"}}, "code"),
    ],
)
def test_what_is_not_in_the_schema_is_a_problem(message: dict[str, Any], problem: str):
    messages = Messages()
    asking = {"id": 1, "method": "session/prompt", "params": {"sessionId": "s", "prompt": []}}
    messages.add({"jsonrpc": "2.0", **asking}, is_agents=False)
    messages.add({"jsonrpc": "2.0", **message}, is_agents=True)

    assert any(problem in each for each in messages.problems)


@pytest.mark.parametrize("version", [0, 2, 65535])
async def test_another_version_is_answered_with_the_one_that_is_spoken(place: Place, version: int):
    async with (
        ScriptedEndpoint(Answer()) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        answer = await running.connection.initialize(version)

    assert 1 == answer.protocol_version


async def test_a_client_that_offers_nothing_is_asked_for_nothing_but_permission(place: Place):
    async with (
        ScriptedEndpoint(Answer(calls=CALLS), Answer(text="Done.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        prompt = [acp.text_block("go")]
        await running.connection.prompt(session_id=session.session_id, prompt=prompt)

    asked = {method for method, kind in running.messages.seen if kind == "Request"}
    assert {"initialize", "session/new", "session/prompt", "session/request_permission"} == asked


async def test_a_method_of_somebodys_own_is_answered_and_the_session_goes_on(place: Place):
    async with (
        ScriptedEndpoint(Answer(text="Hi.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        with pytest.raises(acp.RequestError) as refused:
            await running.connection._conn.send_request("_example/sing", {})
        await running.connection._conn.send_notification("_example/hum", {})
        prompt = [acp.text_block("hi")]
        response = await running.connection.prompt(session_id=session.session_id, prompt=prompt)

    assert -32601 == refused.value.code
    assert "end_turn" == response.stop_reason

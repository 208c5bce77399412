"""Plan mode: what it gates, and how it is left."""

import asyncio

import acp
import acp.schema
import pytest

from services.agent.core.plan_dir import project_id
from tests.system.agent.asking import EDIT, prompt
from tests.system.agent.conftest import Place
from tests.system.agent.editor_double import EditorDouble
from tests.system.agent.scripted_endpoint import Answer, Call, ScriptedEndpoint


async def test_plan_mode_in_mid_turn_gates_the_next_tool_and_rebuilds_the_prompt(place: Place):
    hold = asyncio.Event()
    plans = place.home / "data/cortex-acp/plans" / project_id(str(place.project))
    (plans.parent).mkdir(parents=True)
    outside = Call("write_file", {"path": "new.txt", "content": "x"}, "c2")
    escape = Call("write_file", {"path": f"{plans}/../../escape.txt", "content": "x"}, "c3")
    inside = Call("write_file", {"path": f"{plans}/01-overview.md", "content": "plan"}, "c4")
    answers = [
        Answer(text="Editing.", calls=[EDIT], hold=hold),
        Answer(calls=[outside, escape, inside, Call("bash", {"command": "touch made"}, "c5")]),
        Answer(text="1. 2. 3."),
    ]
    async with (
        ScriptedEndpoint(*answers) as endpoint,
        place.agent(endpoint, EditorDouble(), terminals=True) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        asking = asyncio.create_task(prompt(running, session.session_id))
        await running.editor.seen(lambda u: isinstance(u, acp.schema.AgentMessageChunk))
        await running.connection.set_session_mode(session_id=session.session_id, mode_id="plan")
        hold.set()
        response = await asking

    assert "end_turn" == response.stop_reason
    assert ["greeting.txt"] == [each.name for each in place.project.iterdir()]
    assert "hello world\n" == (place.project / "greeting.txt").read_text()
    assert [] == running.editor.asked
    assert {} == running.editor.terminals
    assert "plan" == (plans / "01-overview.md").read_text()
    assert ["01-overview.md"] == [each.name for each in plans.iterdir()]
    first, second = (request["messages"][0]["content"] for request in endpoint.requests[:2])
    assert "# Plan mode" not in first
    assert second.endswith("3. Stay in plan mode and refine the plan.")
    assert str(plans) in second
    results = [m["content"] for m in endpoint.requests[2]["messages"] if m["role"] == "tool"]
    assert str(place.project / "new.txt") in results[1]
    assert str(plans) in results[1]
    assert "plan mode: bash is disabled" in results[4]
    assert "plan" == place.record(session.session_id)["mode"]


@pytest.mark.parametrize(
    ("choice", "mode"),
    [("accept-edits", "accept-edits"), ("default", "default"), ("plan", "plan"), (None, "plan")],
)
async def test_plan_mode_is_left_by_a_dialog_and_the_turn_goes_on(
    place: Place, choice: str | None, mode: str
):
    async def choose(call: acp.schema.ToolCallUpdate) -> str | None:
        return choice if call.kind == "switch_mode" else "reject"

    leave = Call("exit_plan_mode", {"summary": "Greet differently."}, "c1")
    write = Call("write_file", {"path": "new.txt", "content": "x"}, "c2")
    answers = [Answer(calls=[leave]), Answer(calls=[write]), Answer(text="Done.")]
    async with (
        ScriptedEndpoint(*answers) as endpoint,
        place.agent(endpoint, EditorDouble(choose), CORTEX_ACP_MODE="plan") as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await prompt(running, session.session_id)

    offered = [{t["function"]["name"] for t in each["tools"]} for each in endpoint.requests[:2]]
    modes = [u for u in running.editor.updates if isinstance(u, acp.schema.CurrentModeUpdate)]
    is_left = mode != "plan"
    assert ("exit_plan_mode" in offered[0], "bash" in offered[0]) == (True, False)
    assert ("exit_plan_mode" in offered[1], "bash" in offered[1]) == (not is_left, is_left)
    assert [mode] * is_left == [each.current_mode_id for each in modes]
    assert mode == place.record(session.session_id)["mode"]
    assert (mode == "accept-edits") == (place.project / "new.txt").exists()


async def test_a_number_answers_the_written_menu_of_plan_mode(place: Place):
    menu = "A plan.\n\n1. Implement it.\n2. Step by step.\n3. Stay."
    async with (
        ScriptedEndpoint(Answer(text=menu), Answer(text="On it.")) as endpoint,
        place.agent(endpoint, EditorDouble(), CORTEX_ACP_MODE="plan") as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await prompt(running, session.session_id, "1")  # before there is a menu
        await prompt(running, session.session_id, "1")

    systems = ["# Plan mode" in each["messages"][0]["content"] for each in endpoint.requests]
    assert [True, False] == systems
    assert "accept-edits" == place.record(session.session_id)["mode"]

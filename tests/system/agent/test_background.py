"""Commands in the background, through the whole agent."""

import asyncio
from typing import Any

import acp
import pytest

from tests.doubles.processes import is_running
from tests.system.agent.conftest import Place
from tests.system.agent.editor_double import EditorDouble
from tests.system.agent.scripted_endpoint import Answer, Call, ScriptedEndpoint

SERVER = "echo listening; sleep 600 & echo $! $$ > pids.new; mv pids.new pids; wait"
START = Call("bash", {"command": SERVER, "run_in_background": True}, "c1")
ASK = Call("bash_output", {"id": "b1"}, "c2")
KILL = Call("bash_kill", {"id": "b1"}, "c3")


async def prompt(running: Any, session_id: str, text: str = "serve it") -> Any:
    async with asyncio.timeout(60):
        return await running.connection.prompt(session_id=session_id, prompt=[acp.text_block(text)])


def pids(place: Place) -> list[int]:
    return [int(pid) for pid in (place.project / "pids").read_text().split()]


async def gone(processes: list[int]) -> None:
    async with asyncio.timeout(60):
        while any(map(is_running, processes)):
            await asyncio.sleep(0.01)


async def test_a_server_outlives_its_prompt_and_its_card_is_open_until_it_ends(place: Place):
    answers = [Answer(calls=[START]), Answer(text="It runs."), Answer(calls=[ASK])]
    answers += [Answer(calls=[KILL]), Answer(text="It is over.")]
    async with (
        ScriptedEndpoint(*answers) as endpoint,
        place.agent(endpoint, EditorDouble(), terminals=True) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await prompt(running, session.session_id)
        processes = pids(place)
        runs = all(map(is_running, processes))
        first = running.editor.statuses("c1")
        await prompt(running, session.session_id, "/status")
        await prompt(running, session.session_id)
        await gone(processes)

    assert runs
    assert "In the background: b1, `echo listening;" in running.editor.text()
    assert "in_progress" == first[-1]
    assert "failed" == running.editor.statuses("c1")[-1]
    assert ["c1"] == [each.tool_call_id for each in running.editor.asked]
    assert {} == running.editor.terminals, "which would outlive a killed agent"
    results = [m["content"] for m in endpoint.requests[-1]["messages"] if m["role"] == "tool"]
    assert results[0].startswith("listening\n[it goes on in the background as b1")
    assert ["[no output]\n[it still runs]", "[no output]\n[killed]"] == results[1:]


@pytest.mark.parametrize("how", ["close", "leave", "kill"])
async def test_they_end_with_the_session_and_with_the_agent(place: Place, how: str):
    async with (
        ScriptedEndpoint(Answer(calls=[START]), Answer(text="It runs.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await prompt(running, session.session_id)
        processes = pids(place)
        runs = all(map(is_running, processes))
        if how == "close":
            await running.connection.close_session(session_id=session.session_id)
            await gone(processes)
        if how == "kill":
            running.process.kill()
    await gone(processes)

    assert runs

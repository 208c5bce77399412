"""Searches by a second agent, through the whole agent."""

import asyncio
import json
from typing import Any

import acp
import acp.schema
import pytest

from tests.system.agent.conftest import Place
from tests.system.agent.editor_double import EditorDouble
from tests.system.agent.scripted_endpoint import Answer, Call, ScriptedEndpoint

SEARCH = Call("search_agent", {"task": "Where is the greeting?"}, "c1")
READ = Call("read_file", {"path": "greeting.txt"}, "c2")
WRITE = Call("write_file", {"path": "greeting.txt", "content": "gone"}, "c3")
OUTSIDE = Call("read_file", {"path": "/etc/hostname"}, "c4")


async def prompt(running: Any, session_id: str) -> Any:
    async with asyncio.timeout(60):
        return await running.connection.prompt(
            session_id=session_id, prompt=[acp.text_block("find the greeting")]
        )


def names(request: dict[str, Any]) -> set[str]:
    return {tool["function"]["name"] for tool in request.get("tools", ())}


def cards(editor: EditorDouble) -> dict[str, Any]:
    """The cards that were opened, and the call that each one names as the one around it."""
    started = [u for u in editor.updates if isinstance(u, acp.schema.ToolCallStart)]
    meta = {each.tool_call_id: each.field_meta for each in started}
    return {key: value and value["cortex"]["parentToolCallId"] for key, value in meta.items()}


async def test_a_search_has_a_context_of_its_own_and_only_its_answer_comes_back(place: Place):
    answers = [
        Answer(text="Let it search.", calls=[SEARCH]),
        Answer(text="Looking.", calls=[READ, WRITE, OUTSIDE]),
        Answer(text="In greeting.txt, line 1."),
        Answer(text="There it is."),
    ]
    async with (
        ScriptedEndpoint(*answers) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        response = await prompt(running, session.session_id)

    first, searched, again, last = endpoint.requests
    assert "search_agent" in names(first)
    assert {"read_file", "list_dir", "grep", "glob"} == names(searched)
    assert ["system", "user"] == [each["role"] for each in searched["messages"]]
    assert "Where is the greeting?" == searched["messages"][1]["content"]
    results = [m["content"] for m in again["messages"] if m["role"] == "tool"]
    assert "hello world\n" == results[0]
    assert "there is no tool 'write_file'" in results[1]
    assert "In greeting.txt, line 1." == last["messages"][-1]["content"]
    assert "hello world" not in json.dumps(last)
    assert "hello world\n" == (place.project / "greeting.txt").read_text()
    assert ["c4"] == [each.tool_call_id for each in running.editor.asked], "it is outside"
    assert {"c1": None, "c2": "c1", "c3": "c1", "c4": "c1"} == cards(running.editor)
    assert "Let it search.There it is." == running.editor.text()
    assert (400, 80) == (response.usage.input_tokens, response.usage.output_tokens)
    types = [turn["type"] for turn in place.record(session.session_id)["history"]]
    assert ["user", "assistant", "results", "assistant"] == types


@pytest.mark.parametrize("bound", ["search_rounds = 2", "search_tokens = 240"])
async def test_a_search_that_runs_out_of_room_answers_with_what_it_has(place: Place, bound: str):
    (place.home / "agent.toml").write_text(f"{bound}\n[[endpoints]]\n")
    looks = [Answer(calls=[Call("grep", {"pattern": f"{n}"}, f"g{n}")]) for n in range(2)]
    answers = [Answer(calls=[SEARCH]), *looks, Answer(text="Nothing."), Answer(text="So be it.")]
    async with (
        ScriptedEndpoint(*answers) as endpoint,
        place.agent(
            endpoint, EditorDouble(), CORTEX_ACP_CONFIG=str(place.home / "agent.toml")
        ) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await prompt(running, session.session_id)

    final = endpoint.requests[3]
    assert set() == names(final)
    assert "answer with what you have found" in final["messages"][-1]["content"]
    assert "Nothing." == endpoint.requests[4]["messages"][-1]["content"]
    assert "So be it." == running.editor.text()


async def test_cancelling_the_prompt_ends_its_search(place: Place):
    hold = asyncio.Event()
    answers = [Answer(calls=[SEARCH]), Answer(text="Looking ", hold=hold)]
    async with (
        ScriptedEndpoint(*answers) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        asking = asyncio.create_task(prompt(running, session.session_id))
        await running.editor.seen(lambda u: "Looking" in str(getattr(u, "content", "")))
        await running.connection.cancel(session_id=session.session_id)
        response = await asking

    assert ("cancelled", 1) == (response.stop_reason, endpoint.closed_early)
    assert "failed" == running.editor.statuses("c1")[-1]


async def test_a_search_that_cannot_be_asked_for_is_told_and_the_turn_goes_on(place: Place):
    broken = Answer(status=500, error={"message": "out of order"})
    answers = [Answer(calls=[SEARCH]), *[broken] * 4, Answer(text="Then by hand.")]
    async with (
        ScriptedEndpoint(*answers) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        response = await prompt(running, session.session_id)

    assert "end_turn" == response.stop_reason
    assert "the search broke off" in endpoint.requests[-1]["messages"][-1]["content"]

"""Endpoints that refuse, cut, or find too long what they are asked."""

import json
from typing import Any

import acp
import acp.schema
import pytest

from tests.system.agent.asking import EDIT, prompt
from tests.system.agent.conftest import WIRES, Place
from tests.system.agent.editor_double import EditorDouble
from tests.system.agent.scripted_endpoint import Answer, Call, ScriptedEndpoint


async def test_a_window_of_8k_is_held_whatever_tools_print(place: Place):
    """By the characters of each request, of an endpoint that counts a token for two of them."""
    (place.project / "long.txt").write_text("word " * 40_000)
    reads = [
        Answer(
            text=f"Reading, {number}.",
            calls=[Call("bash", {"command": f"cat long.txt; echo {number}"}, f"c{number}")],
            usage=(4000, 20),
        )
        for number in range(12)
    ]
    async with (
        ScriptedEndpoint(*reads, Answer(text="Done.")) as endpoint,
        place.agent(
            endpoint,
            EditorDouble(),
            CORTEX_ACP_MODE="bypassPermissions",
            CORTEX_ACP_CONTEXT_WINDOW="8192",
        ) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        response = await prompt(running, session.session_id)

    assert response.stop_reason == "end_turn"
    assert len(endpoint.requests) == 13
    outputs = [
        len(message["content"])
        for request in endpoint.requests
        for message in request["messages"]
        if message["role"] == "tool"
    ]
    assert max(outputs) < 8192 * 3.5 / 4 + 200
    assert max(len(json.dumps(request)) for request in endpoint.requests) < 8192 * 5


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_prompt_that_is_refused_is_in_no_later_request(place: Place, status: int):
    refusal = Answer(status=status, error={"message": "This picture is no picture."})
    answers = [Answer(text="First."), refusal, Answer(text="Last.")]
    async with (
        ScriptedEndpoint(*answers) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await prompt(running, session.session_id, "one")
        with pytest.raises(acp.RequestError, match="no picture"):
            await prompt(running, session.session_id, "a bad attachment")
        response = await prompt(running, session.session_id, "three")

    assert response.stop_reason == "end_turn"
    sent = [json.dumps(request) for request in endpoint.requests]
    assert ["one" in sent[-1], "bad attachment" in sent[1], "three" in sent[-1]] == [True] * 3
    assert "bad attachment" not in sent[-1]


@pytest.mark.parametrize("wire", WIRES)
async def test_an_answer_that_breaks_off_is_an_error_and_stays_in_the_session(
    place: Place, wire: str
):
    async with (
        ScriptedEndpoint(Answer(text="half", broken=True)) as endpoint,
        place.agent(endpoint, EditorDouble(), wire=wire) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        with pytest.raises(acp.RequestError, match="ended its answer without"):
            await prompt(running, session.session_id)

    assert "half" == place.record(session.session_id)["history"][1]["text"]
    assert "error" == place.events("prompt complete")[0]["stop_reason"]


async def test_an_answer_that_is_cut_once_is_asked_for_again(place: Place):
    cut = Answer(text="half", calls=[EDIT], broken=True)
    async with (
        ScriptedEndpoint(cut, Answer(text="Whole.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        response = await prompt(running, session.session_id)

    chunks = [u for u in running.editor.updates if isinstance(u, acp.schema.AgentMessageChunk)]
    assert "end_turn" == response.stop_reason
    assert 2 == len({each.message_id for each in chunks})
    assert ["user", "assistant"] == [t["type"] for t in place.record(session.session_id)["history"]]
    assert "failed" == running.editor.statuses("call_edit")[-1]
    assert "hello world\n" == (place.project / "greeting.txt").read_text()


async def test_an_answer_without_an_end_is_left(place: Place):
    endless = Answer(text="and so on\n" * 500_000, piece=65_536)
    async with (
        ScriptedEndpoint(endless) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        with pytest.raises(acp.RequestError, match="goes on beyond"):
            await prompt(running, session.session_id)

    assert 1 == len(endpoint.requests)


async def test_an_endpoint_that_refuses_tools_is_asked_again_in_text(place: Place):
    refusal = {"message": "tools param requires --jinja flag", "type": "invalid_request_error"}
    in_text = (
        '<tool_call>\n{"name": "read_file", "arguments": {"path": "greeting.txt"}}}\n</tool_call>'
    )
    answers = [Answer(status=400, error=refusal), Answer(text=in_text), Answer(text="Done.")]
    async with (
        ScriptedEndpoint(*answers) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        response = await prompt(running, session.session_id)

    assert "end_turn" == response.stop_reason
    assert "tools" in endpoint.requests[0]
    assert "tools" not in endpoint.requests[1]
    assert "<tools>" in endpoint.requests[1]["messages"][0]["content"]
    assert "<tool_response>\nhello world\n" in endpoint.requests[2]["messages"][-1]["content"]
    shown = json.dumps([u.model_dump(mode="json") for u in running.editor.updates])
    assert "(repaired: 1 surplus closing brace)" in shown


async def test_a_conversation_that_is_too_long_is_shortened_and_asked_again(place: Place):
    (place.project / "long.txt").write_text("x" * 6000)
    too_long = {"message": "maximum context length is 9 tokens", "code": "context_length_exceeded"}
    read = Call("read_file", {"path": "long.txt"}, "c0")
    answers = [Answer(calls=[read]), Answer(text="Read.")] + [Answer(text="ok")] * 2
    answers += [Answer(status=400, error=too_long), Answer(text="Fits.")]
    async with (
        ScriptedEndpoint(*answers) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        for _ in range(3):
            await prompt(running, session.session_id)
        response = await prompt(running, session.session_id)

    assert "end_turn" == response.stop_reason
    assert "x" * 6000 in json.dumps(endpoint.requests[4])
    assert "left out to save room: 6000 characters" in json.dumps(endpoint.requests[5])
    assert "x" * 6000 in json.dumps(place.record(session.session_id))


async def test_keys_of_other_vendors_in_the_environment_are_not_sent(place: Place):
    secrets: Any = {
        "OPENAI_API_KEY": "leak-1",
        "ANTHROPIC_API_KEY": "leak-2",
        "ANTHROPIC_AUTH_TOKEN": "leak-3",
    }
    async with ScriptedEndpoint(Answer(text="Hi.")) as endpoint:
        for wire in WIRES:
            async with place.agent(endpoint, EditorDouble(), wire=wire, **secrets) as running:
                session = await running.connection.new_session(str(place.project))
                await prompt(running, session.session_id)

    assert 3 == len(endpoint.headers)
    assert "leak" not in json.dumps(endpoint.headers)

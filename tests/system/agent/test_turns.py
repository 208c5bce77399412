"""Turns: rounds, tools and permissions; the SDK's client over stdio, a process of the agent, real SSE."""

import json

import acp
import acp.schema
import pytest

from services.agent.core.plan_dir import project_id
from tests.system.agent.asking import EDIT, READ, prompt
from tests.system.agent.conftest import WIRES, Place
from tests.system.agent.editor_double import EditorDouble, reject
from tests.system.agent.scripted_endpoint import Answer, Call, ScriptedEndpoint


async def test_a_call_that_the_token_limit_cut_is_not_run_and_the_model_hears_why(place: Place):
    half = Call("write_file", {"path": "greeting.txt", "content": "half of i"})
    answers = [Answer(calls=[half], stop="length"), Answer(text="I write less.")]
    before = (place.project / "greeting.txt").read_text()
    async with (
        ScriptedEndpoint(*answers) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        response = await prompt(running, session.session_id)

    assert response.stop_reason == "end_turn"
    assert before == (place.project / "greeting.txt").read_text()
    assert "reached its token limit" in json.dumps(endpoint.requests[-1])


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("files", [False, True], ids=["local", "editor"])
async def test_a_prompt_reads_and_edits_a_file_in_every_dialect(
    place: Place, wire: str, files: bool
):
    answers = [
        Answer(thought="Let me look.", text="Reading.", calls=[READ]),
        Answer(text="Editing.", calls=[EDIT]),
        Answer(text="Done."),
    ]
    async with (
        ScriptedEndpoint(*answers) as endpoint,
        place.agent(endpoint, EditorDouble(), wire=wire, files=files) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        response = await prompt(running, session.session_id)

    editor = running.editor
    assert "end_turn" == response.stop_reason
    assert (300, 60) == (response.usage.input_tokens, response.usage.output_tokens)
    assert "hello wörld 🌍\n" == (place.project / "greeting.txt").read_text()
    assert "Reading.Editing.Done." == editor.text()
    assert ["pending", "in_progress", "completed"] == editor.statuses("call_read")
    assert "completed" == editor.statuses("call_edit")[-1]
    assert ["call_edit"] == [call.tool_call_id for call in editor.asked]
    assert files == bool(editor.written)
    thoughts = [u for u in editor.updates if isinstance(u, acp.schema.AgentThoughtChunk)]
    assert "Let me look." == "".join(each.content.text for each in thoughts)
    diffs = [
        content
        for update in editor.updates
        for content in getattr(update, "content", None) or []
        if isinstance(content, acp.schema.FileEditToolCallContent)
    ]
    assert ("hello world\n", "hello wörld 🌍\n") == (diffs[0].old_text, diffs[0].new_text)
    assert "hello world" in json.dumps(endpoint.requests[1])
    usage = next(u for u in editor.updates if isinstance(u, acp.schema.UsageUpdate))
    assert (120, 8192) == (usage.used, usage.size)


async def test_the_log_names_every_round_and_tool(place: Place):
    async with (
        ScriptedEndpoint(Answer(calls=[READ]), Answer(text="Done.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await prompt(running, session.session_id)

    keys = [
        "event", "round", "of", "history_turns", "tool", "tool_call_id", "is_error", "turns",
        "stop_reason", "session_id",
    ]  # fmt: skip
    seen = [{key: line[key] for key in keys if key in line} for line in place.log()]
    sid = {"session_id": session.session_id}
    assert [
        {"event": "prompt round: streaming", "round": 1, "of": 50, "history_turns": 1, **sid},
        {"event": "dispatch tool", "tool": "read_file", "tool_call_id": "call_read", **sid},
        {"event": "dispatch tool complete", "tool_call_id": "call_read", "is_error": False, **sid},
        {"event": "prompt round complete; persisting", "round": 1, "turns": 3, **sid},
        {"event": "prompt round: streaming", "round": 2, "of": 50, "history_turns": 3, **sid},
        {"event": "prompt round complete; persisting", "round": 2, "turns": 4, **sid},
        {"event": "prompt complete", "stop_reason": "end_turn", **sid},
    ] == [line for line in seen if line["event"].startswith(("prompt", "dispatch"))]


async def test_a_call_that_fails_three_times_ends_the_turn_with_a_word(place: Place):
    missing = Call("read_file", {"path": "nothing.txt"}, "")
    async with (
        ScriptedEndpoint(
            Answer(calls=[missing]), Answer(calls=[READ]), Answer(calls=[missing])
        ) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        response = await prompt(running, session.session_id)

    assert ("end_turn", 4) == (response.stop_reason, len(endpoint.requests))
    assert "the same failing call `read_file` 3 times" in running.editor.text()
    assert "nothing.txt" in running.editor.text()
    last = place.record(session.session_id)["history"][-1]
    assert ("assistant", running.editor.text()) == (last["type"], last["text"])


async def test_the_bound_of_rounds_is_named(place: Place):
    async with (
        ScriptedEndpoint(Answer(calls=[READ])) as endpoint,
        place.agent(endpoint, EditorDouble(), CORTEX_ACP_MAX_ROUNDS="2") as running,
    ):
        session = await running.connection.new_session(str(place.project))
        response = await prompt(running, session.session_id)

    assert ("max_turn_requests", 2) == (response.stop_reason, len(endpoint.requests))
    assert "asked the model 2 times" in running.editor.text()
    assert "`max_rounds`" in running.editor.text()


async def test_a_refused_permission_leaves_the_file_and_tells_the_model(place: Place):
    async with (
        ScriptedEndpoint(Answer(calls=[EDIT]), Answer(text="Then not.")) as endpoint,
        place.agent(endpoint, EditorDouble(reject)) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        response = await prompt(running, session.session_id)

    assert "end_turn" == response.stop_reason
    assert "hello world\n" == (place.project / "greeting.txt").read_text()
    assert "failed" == running.editor.statuses("call_edit")[-1]
    result = endpoint.requests[1]["messages"][-1]
    assert ("tool", "ERROR: the user refused this call") == (result["role"], result["content"])


async def test_commands_do_not_see_the_agents_own_key(place: Place):
    bash = Call("bash", {"command": "env"}, "c1")
    async with (
        ScriptedEndpoint(Answer(calls=[bash]), Answer(text="Done.")) as endpoint,
        place.agent(endpoint, EditorDouble(), CORTEX_ACP_API_KEY="secret-key") as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await prompt(running, session.session_id)

    assert "Bearer secret-key".lower() == endpoint.headers[0]["authorization"]
    result = endpoint.requests[1]["messages"][-1]["content"]
    assert "PATH=" in result
    assert "secret-key" not in result
    assert "secret-key" not in json.dumps(place.log())


async def test_a_command_runs_in_the_editors_terminal_and_gives_it_back(place: Place):
    bash = Call("bash", {"command": "echo out; exit 3"}, "c1")
    async with (
        ScriptedEndpoint(Answer(calls=[bash]), Answer(text="Done.")) as endpoint,
        place.agent(endpoint, EditorDouble(), terminals=True) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await prompt(running, session.session_id)

    editor = running.editor
    assert ([], ["t0"]) == (editor.killed, editor.released)
    assert "ERROR: out\n[exit code 3]" == endpoint.requests[1]["messages"][-1]["content"]
    shown = [content for u in editor.updates for content in getattr(u, "content", None) or ()]
    assert any(getattr(each, "terminal_id", "") == "t0" for each in shown)


async def test_rules_images_and_attachments_reach_the_model(place: Place):
    (place.project / "AGENTS.md").write_text("Speak like a pirate.")
    blocks = [
        acp.text_block("look at "),
        acp.resource_link_block("greeting", f"file://{place.project}/greeting.txt"),
        acp.resource_block(acp.embedded_text_resource("file:///notes.md", "remember")),
        acp.image_block("aGk=", "image/png"),
    ]
    async with (
        ScriptedEndpoint(Answer(text="Arr.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await running.connection.prompt(session_id=session.session_id, prompt=blocks)

    system, user = endpoint.requests[0]["messages"]
    assert "Speak like a pirate." in system["content"]
    text, image = user["content"]
    path = place.project / "greeting.txt"
    assert f"look at [greeting]({path})" in text["text"]
    assert '<file path="/notes.md">\nremember\n</file>' in text["text"]
    assert "data:image/png;base64,aGk=" == image["image_url"]["url"]


async def test_a_permission_that_lasts_is_asked_for_once_and_can_be_edited(place: Place):
    async def always(_: object) -> str | None:
        return "allow-lasting"

    calls = [Call("bash", {"command": f"touch {n}"}, f"c{n}") for n in ("one", "two", "three")]
    answers = [part for call in calls for part in (Answer(calls=[call]), Answer(text="Done."))]
    rules = place.home / "config/cortex-acp/permissions" / f"{project_id(str(place.project))}.rules"
    asked: list[int] = []
    kept: list[str] = []
    async with ScriptedEndpoint(*answers) as endpoint:
        for decide in (always, reject, reject):
            async with place.agent(endpoint, EditorDouble(decide)) as running:
                session = await running.connection.new_session(str(place.project))
                await prompt(running, session.session_id)
                asked.append(len(running.editor.asked))
            kept.append(rules.read_text().splitlines()[-1])
            rules.write_text("run touch two\n")

    assert "run touch one" == kept[0]
    assert [1, 0, 1] == asked
    assert ["greeting.txt", "one", "two"] == sorted(each.name for each in place.project.iterdir())

"""Whole sessions: the SDK's client over stdio, a process of the agent, real SSE."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import acp
import acp.schema
import pytest

from services.agent.core.plan_dir import project_id
from tests.system.agent.conftest import WIRES, Place
from tests.system.agent.editor_double import EditorDouble, reject
from tests.system.agent.scripted_endpoint import Answer, Call, ScriptedEndpoint

READ = Call("read_file", {"path": "greeting.txt"}, "call_read")
EDIT = Call(
    "edit_file",
    {"path": "greeting.txt", "old_text": "world", "new_text": "wörld 🌍"},
    "call_edit",
)


async def prompt(running: Any, session_id: str, text: str = "change the greeting") -> Any:
    async with asyncio.timeout(30):
        return await running.connection.prompt(session_id=session_id, prompt=[acp.text_block(text)])


def is_running(pid: int) -> bool:
    """Whether a process is there and not only waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


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
            async with asyncio.timeout(20):
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


async def test_the_users_turn_is_on_disk_before_the_model_is_asked(place: Place):
    hold = asyncio.Event()
    async with (
        ScriptedEndpoint(Answer(text="Hi.", hold_before=hold)) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        asking = asyncio.create_task(prompt(running, session.session_id, "are you there?"))
        await endpoint.requested(1)
        stored = place.record(session.session_id)["history"]
        hold.set()
        await asking

    assert "are you there?" == stored[0]["parts"][0]["text"]


async def test_the_history_and_its_plan_are_shown_before_load_answers(place: Place):
    order: list[str] = []

    def observe(event: Any) -> None:
        message = event.message
        if event.direction.value == "incoming":
            kind = message.get("params", {}).get("update", {}).get("sessionUpdate", "response")
            order.append(kind)

    plan = Call("update_plan", {"steps": [{"content": "look", "status": "completed"}]}, "c1")
    async with ScriptedEndpoint(Answer(text="Plan.", calls=[plan]), Answer(text="Hi.")) as endpoint:
        async with place.agent(endpoint, EditorDouble()) as running:
            session = await running.connection.new_session(f"{place.project}/")
            await prompt(running, session.session_id)
        async with place.agent(endpoint, EditorDouble()) as loading:
            listed = await loading.connection.list_sessions(cwd=f"{place.project}/")
            loading.connection._conn.add_observer(observe)
            await loading.connection.load_session(str(place.project), session.session_id)

    first, *_, last = [m for m in running.editor.updates if hasattr(m, "message_id")]
    assert [session.session_id] == [each.session_id for each in listed.sessions]
    assert [
        "user_message_chunk", "agent_message_chunk", "tool_call", "tool_call_update",
        "agent_message_chunk", "plan", "available_commands_update", "response",
    ] == order  # fmt: skip
    assert first.message_id
    assert last.message_id
    assert first.message_id != last.message_id


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


async def test_a_fork_has_the_history_and_the_commands_of_a_session(place: Place):
    def offers_commands(update: Any) -> bool:
        return isinstance(update, acp.schema.AvailableCommandsUpdate)

    async with (
        ScriptedEndpoint(Answer(text="Hi."), Answer(text="Again.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await prompt(running, session.session_id, "remember the ducks")
        await running.editor.seen(offers_commands)
        running.editor.updates.clear()

        fork = await running.connection.fork_session(
            cwd=str(place.project), session_id=session.session_id
        )

        await running.editor.seen(offers_commands)
        await prompt(running, fork.session_id)
    assert fork.session_id != session.session_id
    assert "remember the ducks" in json.dumps(endpoint.requests[-1])


async def test_modes_models_and_options_are_kept(place: Place):
    async with ScriptedEndpoint(Answer(text="Hi.")) as endpoint:
        async with place.agent(endpoint, EditorDouble()) as running:
            session = await running.connection.new_session(str(place.project))
            await running.connection.set_config_option(
                config_id="mode", session_id=session.session_id, value="accept-edits"
            )
            await running.connection.set_config_option(
                config_id="model", session_id=session.session_id, value="cortex:other"
            )
            with pytest.raises(acp.RequestError):
                await running.connection.set_session_mode(
                    session_id=session.session_id, mode_id="yolo"
                )
            await running.connection._conn.send_request(
                "session/set_model", {"sessionId": session.session_id, "modelId": "llama3:8b"}
            )
            await prompt(running, session.session_id)
        async with place.agent(endpoint, EditorDouble()) as second:
            resumed = await second.connection.resume_session(
                cwd=str(place.project), session_id=session.session_id
            )

    assert "scripted" == session.config_options[1].current_value.split(":")[1]
    assert "llama3:8b" == endpoint.requests[0]["model"]
    assert "accept-edits" == resumed.modes.current_mode_id
    values = [option.current_value for option in resumed.config_options]
    assert ["accept-edits", "cortex:llama3:8b"] == values


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


MCP_SERVER = """
import os
from mcp.server import MCPServer

server = MCPServer("weather")


@server.tool()
def forecast(city: str) -> str:
    return f"{os.environ['MOOD']} in {city}"


@server.tool()
def storm() -> str:
    os._exit(1)


server.run()
"""


async def test_mcp_servers_of_the_editor_lend_their_tools_after_asking(place: Place):
    script = place.home / "weather.py"
    script.write_text(MCP_SERVER)
    servers = [
        acp.schema.McpServerStdio(
            name="weather",
            command=sys.executable,
            args=[str(script)],
            env=[acp.schema.EnvVariable(name="MOOD", value="sunny")],
        ),
        acp.schema.McpServerStdio(name="broken", command="/nonexistent", args=[], env=[]),
        acp.schema.HttpMcpServer(
            type="http", name="gone", url="http://127.0.0.1:1/mcp", headers=[]
        ),
    ]
    call = Call("mcp__weather__forecast", {"city": "Kiel"}, "c1")
    async with (
        ScriptedEndpoint(Answer(calls=[call]), Answer(text="Done.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project), mcp_servers=servers)
        response = await prompt(running, session.session_id)

    assert "end_turn" == response.stop_reason
    assert ["c1"] == [call.tool_call_id for call in running.editor.asked]
    assert "sunny in Kiel" == endpoint.requests[1]["messages"][-1]["content"]
    assert {"broken", "gone"} == {each["server"] for each in place.events("mcp server failed")}


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


async def test_initialize_offers_only_what_there_is(place: Place):
    async with (
        ScriptedEndpoint(Answer()) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        can: Any = running.initialized.agent_capabilities
        with pytest.raises(acp.RequestError, match="Method not found"):
            await running.connection._conn.send_request("session/teleport", {})
        with pytest.raises(acp.RequestError):
            await running.connection.new_session("relative/path")
        with pytest.raises(acp.RequestError):
            await running.connection.load_session(str(place.project), "../../etc/passwd")
        with pytest.raises(acp.RequestError, match="Invalid params"):
            await running.connection.new_session("/nowhere/at/all")

    assert 1 == running.initialized.protocol_version
    assert can.load_session
    assert (True, False, True) == (
        can.prompt_capabilities.image,
        can.prompt_capabilities.audio,
        can.prompt_capabilities.embedded_context,
    )
    assert can.session_capabilities.list is not None
    assert can.session_capabilities.resume is not None
    assert can.session_capabilities.delete is not None


async def test_a_deleted_session_is_gone(place: Place):
    async with (
        ScriptedEndpoint(Answer(text="Hi.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await prompt(running, session.session_id)
        send = running.connection._conn.send_request
        for _ in range(2):  # the second one finds nothing, and that is no error
            await send("session/delete", {"sessionId": session.session_id})
        listed = await running.connection.list_sessions()
        with pytest.raises(acp.RequestError):
            await running.connection.load_session(str(place.project), session.session_id)

    assert [] == listed.sessions
    assert [] == list((place.home / "data/cortex-acp/sessions").iterdir())


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


async def test_undo_and_rewind_take_back_files_and_history(place: Place):
    new = Call("write_file", {"path": "new.txt", "content": "x"}, "c2")
    rounds = [Answer(calls=[EDIT]), Answer(text="Edited."), Answer(calls=[new])]
    answers = [*rounds, Answer(text="Written."), Answer(text="Talked.")]
    async with (
        ScriptedEndpoint(*answers) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        for text in ("edit", "write", "talk"):
            await prompt(running, session.session_id, text)
        await prompt(running, session.session_id, "/undo")
        is_kept = (place.project / "new.txt").exists()
        await prompt(running, session.session_id, "/rewind 2")
        await prompt(running, session.session_id, "/undo")

    assert is_kept
    assert ["greeting.txt"] == [each.name for each in place.project.iterdir()]
    assert "hello world\n" == (place.project / "greeting.txt").read_text()
    assert [] == place.record(session.session_id)["history"]
    assert "2 prompts taken back." in running.editor.text()
    assert running.editor.text().endswith("There is nothing to take back.")


async def test_a_projects_own_command_is_offered_and_asked(place: Place):
    (place.project / ".agents/commands").mkdir(parents=True)
    (place.project / ".agents/commands/greet.md").write_text("Greet $1 warmly.")
    async with (
        ScriptedEndpoint(Answer(text="Hi.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        offered = await running.editor.seen(
            lambda u: isinstance(u, acp.schema.AvailableCommandsUpdate)
        )
        await prompt(running, session.session_id, "/greet Ann")

    assert "greet" in [each.name for each in offered.available_commands]
    assert "Greet Ann warmly." == endpoint.requests[0]["messages"][-1]["content"]


async def test_a_dead_mcp_servers_tools_disappear_and_the_user_is_told(place: Place):
    script = place.home / "weather.py"
    script.write_text(MCP_SERVER)
    server = acp.schema.McpServerStdio(
        name="weather", command=sys.executable, args=[str(script)], env=[]
    )
    storm = Call("mcp__weather__storm", {}, "c1")
    async with (
        ScriptedEndpoint(Answer(calls=[storm]), Answer(text="Done.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project), mcp_servers=[server])
        await prompt(running, session.session_id)

    names = [{t["function"]["name"] for t in each["tools"]} for each in endpoint.requests]
    assert {"mcp__weather__forecast", "mcp__weather__storm"} == names[0] - names[1]
    shown = json.dumps([u.model_dump(mode="json") for u in running.editor.updates])
    assert "the MCP server weather has ended" in shown

"""What is asked for before it happens, and what becomes of calls that never ran."""

import json
from typing import Any

import acp
import pytest

from tests.system.agent.asking import EDIT, prompt
from tests.system.agent.conftest import Place
from tests.system.agent.editor_double import EditorDouble, reject
from tests.system.agent.scripted_endpoint import Answer, Call, ScriptedEndpoint

SECRET = "the key of the agent"
FILES = [
    ".git/config", ".vscode/tasks.json", ".envrc", ".bashrc", ".github/workflows/ci.yml",
    ".gitlab-ci.yml", "AGENTS.md", "sub/.git/hooks/pre-commit",
]  # fmt: skip


@pytest.mark.parametrize("mode", ["default", "accept-edits", "plan"])
async def test_nothing_outside_the_project_is_read_unasked(place: Place, mode: str):
    outside = place.home / "outside"
    outside.mkdir()
    (outside / "secret.txt").write_text(SECRET)
    (place.project / "link").symlink_to(outside)
    reads = [
        ("read_file", {"path": "/proc/self/environ"}),
        ("read_file", {"path": f"{outside}/secret.txt"}),
        ("read_file", {"path": "link/secret.txt"}),
        ("read_file", {"path": "../outside/secret.txt"}),
        ("grep", {"pattern": "key", "path": "link"}),
        ("glob", {"pattern": "*", "path": ".."}),
        ("list_dir", {"path": str(outside)}),
    ]
    calls = [Call(name, arguments, f"c{n}") for n, (name, arguments) in enumerate(reads)]
    async with (
        ScriptedEndpoint(Answer(calls=calls), Answer(text="Then not.")) as endpoint,
        place.agent(
            endpoint,
            EditorDouble(reject),
            CORTEX_ACP_MODE=mode,
            CORTEX_ACP_API_KEY=SECRET,
        ) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await prompt(running, session.session_id)

    assert [each.id for each in calls] == [each.tool_call_id for each in running.editor.asked]
    assert SECRET not in json.dumps(endpoint.requests)
    results = [m for m in endpoint.requests[1]["messages"] if m["role"] == "tool"]
    assert {"ERROR: the user refused this call"} == {each["content"] for each in results}


async def test_files_that_run_by_themselves_are_asked_about_one_by_one(place: Place):
    calls = [
        Call("write_file", {"path": path, "content": "x"}, f"c{number}")
        for number, path in enumerate([*FILES, "plain.txt"])
    ]
    async with (
        ScriptedEndpoint(Answer(calls=calls), Answer(text="Then not.")) as endpoint,
        place.agent(endpoint, EditorDouble(reject), CORTEX_ACP_MODE="accept-edits") as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await prompt(running, session.session_id)

    assert len(running.editor.asked) == len(FILES)
    assert (place.project / "plain.txt").exists()
    assert not [path for path in FILES if (place.project / path).exists()]


async def test_a_call_of_a_stream_that_broke_twice_is_lost_and_not_cancelled(place: Place):
    answers = [Answer(text="half", calls=[EDIT], broken=True)] * 2
    async with (
        ScriptedEndpoint(*answers, Answer(text="Whole.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        with pytest.raises(acp.RequestError, match="ended its answer without"):
            await prompt(running, session.session_id)
        await prompt(running, session.session_id)

    result = next(m for m in endpoint.requests[-1]["messages"] if m["role"] == "tool")
    assert "the connection was lost before this call could run" in result["content"]
    assert "hello world\n" == (place.project / "greeting.txt").read_text()


async def test_a_search_shows_where_it_found_something(place: Place):
    (place.project / "more.txt").write_text("one\nhello two\n")
    grep = Call("grep", {"pattern": "hello"}, "c1")
    async with (
        ScriptedEndpoint(Answer(calls=[grep]), Answer(text="Found.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await prompt(running, session.session_id)

    last: Any = [u for u in running.editor.updates if getattr(u, "tool_call_id", "") == "c1"][-1]
    found = {(each.path, each.line) for each in last.locations}
    root = place.project.resolve()
    assert {(f"{root}/greeting.txt", 1), (f"{root}/more.txt", 2)} == found


async def test_what_changes_while_the_user_is_asked_is_not_overwritten(place: Place):
    path = place.project / "greeting.txt"

    async def slow(_: object) -> str | None:
        path.write_text("the user's own\n")
        return "allow"

    call = Call("write_file", {"path": "greeting.txt", "content": "the model's\n"}, "c1")
    async with (
        ScriptedEndpoint(Answer(calls=[call]), Answer(text="Oh.")) as endpoint,
        place.agent(endpoint, EditorDouble(slow)) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await prompt(running, session.session_id)

    assert "the user's own\n" == path.read_text()
    assert "while the user was asked" in endpoint.requests[1]["messages"][-1]["content"]

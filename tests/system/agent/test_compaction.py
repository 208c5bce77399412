"""Sessions that outgrow the model's window: summaries, and what is left out where there is none."""

import json
from typing import Any

import acp
import acp.schema
import pytest

from services.agent.storage.summary import SYSTEM
from tests.system.agent.conftest import Place, Running
from tests.system.agent.editor_double import EditorDouble
from tests.system.agent.scripted_endpoint import Answer, Call, ScriptedEndpoint

WINDOW = 8192
CHARACTERS_PER_TOKEN = 2.8  # fewer than the agent assumes before it has learned better
LONG = "All work and no play makes Jack a dull boy. " * 200


def is_for_a_summary(request: dict[str, Any]) -> bool:
    return bool(request["messages"][0]["content"] == SYSTEM)


class CountingEndpoint(ScriptedEndpoint):
    """Counts tokens, refuses what its window cannot hold, and works on a task without an end."""

    def __init__(self, summary: Answer | None = None) -> None:
        super().__init__()
        self.summary = summary or Answer(text="We read long.txt and decided to go on.")
        self.sizes: list[int] = []
        self.refused = 0

    def answer_to(self, request: dict[str, Any]) -> Answer:
        text = json.dumps([request["messages"], request.get("tools")], ensure_ascii=False)
        size = int(len(text) / CHARACTERS_PER_TOKEN)
        self.sizes.append(size)
        if size > WINDOW:
            self.refused += 1
            return Answer(status=400, error={"message": f"{size} tokens: context size exceeded"})
        answer = self.work(len(self.requests))
        if is_for_a_summary(request):
            answer = Answer(text=self.summary.text, stop=self.summary.stop)
        answer.usage, answer.piece = (size, 20), 2000
        return answer

    def work(self, number: int) -> Answer:
        calls = [
            Call("bash", {"command": f"echo {number}; cat long.txt"}, f"c{number}"),
            Call("read_file", {"path": "long.txt"}, f"c{number}"),
            Call("write_file", {"path": f"new{number % 7}.txt", "content": LONG}, f"c{number}"),
            Call("update_plan", {"steps": [{"content": f"step {number}"}]}, f"c{number}"),
        ]
        if number % 3 == 2:
            return Answer(text=f"Done with {number}. {LONG[:1500]}")
        return Answer(text="Next.", calls=[calls[number % len(calls)]])


async def ask(running: Running, session_id: str, text: str) -> Any:
    return await running.connection.prompt(session_id=session_id, prompt=[acp.text_block(text)])


async def worked(place: Place, endpoint: CountingEndpoint, requests: int) -> tuple[Running, str]:
    """Prompts until the endpoint has had so many requests; returns the id of the session."""
    (place.project / "long.txt").write_text(LONG * 10)
    (place.project / "AGENTS.md").write_text("Be brief. " * 3000)
    async with place.agent(
        endpoint, EditorDouble(), CORTEX_ACP_MODE="bypassPermissions"
    ) as running:
        session = await running.connection.new_session(str(place.project))
        for number in range(requests):
            if len(endpoint.requests) >= requests:
                break
            paste = LONG * 20 if number % 20 == 5 else LONG[:600]
            response = await ask(running, session.session_id, f"Task {number}. {paste}")
            assert response.stop_reason == "end_turn"
    return running, session.session_id


def thoughts(running: Running) -> str:
    chunks = [u for u in running.editor.updates if isinstance(u, acp.schema.AgentThoughtChunk)]
    return "".join(each.content.text for each in chunks)


@pytest.mark.parametrize(
    ("requests", "summary"),
    [
        (60, None),
        (30, Answer(text="word " * 5000)),
        (30, Answer(text="cut in mid", stop="length")),
        (30, Answer(text="")),
        pytest.param(500, None, marks=pytest.mark.slow),
    ],
    ids=["summaries", "too long", "cut", "empty", "500 requests"],
)
async def test_a_session_at_8k_goes_on_within_its_window(
    place: Place, requests: int, summary: Answer | None
):
    async with CountingEndpoint(summary) as endpoint:
        running, session_id = await worked(place, endpoint, requests)

    assert len(endpoint.requests) >= requests
    assert endpoint.refused == 0
    assert max(endpoint.sizes) <= WINDOW
    asked = [request for request in endpoint.requests if is_for_a_summary(request)]
    assert 1 <= len(asked) <= requests / 5
    marks = place.record(session_id)["marks"]["summary"]
    assert "# First task\nTask 0." in marks["facts"]
    assert "new" in marks["facts"].split("# Files changed")[1]
    assert "- long.txt" in marks["facts"]
    assert "[ ] step" in marks["facts"]
    assert bool(marks["said"]) == (summary is None)
    told = thoughts(running)
    assert ("are a summary of about" in told) == (summary is None)
    assert ("No summary could be made" in told) == (summary is not None)
    assert "AGENTS.md files are too long" in told
    assert "of its middle" in told
    last = endpoint.requests[-1]["messages"][1]["content"]
    assert "this summary stands for it" in last


async def test_a_summary_is_remembered_by_the_session_and_not_by_its_replay(place: Place):
    async with CountingEndpoint() as endpoint:
        _, session_id = await worked(place, endpoint, 30)
        said = place.record(session_id)["marks"]["summary"]["said"]
        async with place.agent(endpoint, EditorDouble()) as second:
            await second.connection.load_session(str(place.project), session_id)
            replayed = list(second.editor.updates)
            await ask(second, session_id, "Go on.")

    users = [u for u in replayed if isinstance(u, acp.schema.UserMessageChunk)]
    assert users[0].content.text.startswith("Task 0. ")
    assert said in endpoint.requests[-1]["messages"][1]["content"]
    assert len(place.record(session_id)["history"]) > len(endpoint.requests[-1]["messages"])


async def test_compact_summarises_with_the_users_focus(place: Place):
    edit = Call("write_file", {"path": "new.txt", "content": "x"}, "c1")
    answers = [Answer(calls=[edit]), Answer(text="Written."), Answer(text="It was ducks.")]
    async with (
        ScriptedEndpoint(*answers, Answer(text="Yes.")) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await ask(running, session.session_id, "Write about ducks.")
        compacted = await ask(running, session.session_id, "/compact the colour of the ducks")
        await ask(running, session.session_id, "Go on.")

    request = endpoint.requests[2]
    assert is_for_a_summary(request)
    assert "tools" not in request
    question = request["messages"][1]["content"]
    assert question.endswith("keep above all: the colour of the ducks")
    assert "RESULT of write_file: wrote 1 bytes" in question
    assert (compacted.usage.input_tokens, compacted.usage.output_tokens) == (100, 20)
    assert "Summarised: 4 turns.\n\nIt was ducks." in running.editor.text()
    summary = endpoint.requests[3]["messages"][1]["content"]
    assert "# First task\nWrite about ducks." in summary
    assert "# Files changed\n- new.txt" in summary
    assert "It was ducks." in summary
    assert "tool" not in {message["role"] for message in endpoint.requests[3]["messages"]}


async def test_compact_without_a_summary_leaves_old_output_out(place: Place):
    read = Call("read_file", {"path": "long.txt"}, "c1")
    (place.project / "long.txt").write_text(LONG)
    refusal = Answer(status=400, error={"message": "busy with the ducks"})
    answers = [Answer(calls=[read]), Answer(text="Read."), refusal, Answer(text="Yes.")]
    async with (
        ScriptedEndpoint(*answers) as endpoint,
        place.agent(endpoint, EditorDouble()) as running,
    ):
        session = await running.connection.new_session(str(place.project))
        await ask(running, session.session_id, "Read it.")
        await ask(running, session.session_id, "/compact")
        await ask(running, session.session_id, "Go on.")

    assert "busy with the ducks" in running.editor.text()
    sent = json.dumps(endpoint.requests[-1])
    assert "left out to save room" in sent
    assert "Jack" not in sent


async def test_an_endpoint_that_tells_no_window_is_asked_shorter(place: Place):
    """The whole of what it refuses is one paste, of which nothing but its middle can go."""
    too_long = {"message": "the prompt is too long", "code": "context_length_exceeded"}
    answers = [Answer(status=400, error=too_long), Answer(text="Fits.")]
    async with (
        ScriptedEndpoint(*answers) as endpoint,
        place.agent(endpoint, EditorDouble(), CORTEX_ACP_MODEL="unlisted") as running,
    ):
        session = await running.connection.new_session(str(place.project))
        response = await ask(running, session.session_id, LONG * 2)

    first, second = (len(request["messages"][1]["content"]) for request in endpoint.requests)
    assert response.stop_reason == "end_turn"
    assert (first, second < first / 2) == (len(LONG * 2), True)

"""An agent that is killed at any instant: the session goes on, files are whole, nothing runs on."""

import asyncio
import contextlib
import itertools
import random
from typing import Any

import acp
import pytest

from tests.doubles.processes import is_running
from tests.system.agent.conftest import Place
from tests.system.agent.editor_double import EditorDouble
from tests.system.agent.scripted_endpoint import Answer, Call, ScriptedEndpoint

LONG = "All work and no play makes Jack a dull boy.\n" * 20_000
SLEEP = "sleep 600 & echo $! $$ >> pids"


def answers() -> list[Answer]:
    """Rounds that write, run and start things in the background, for longer than anyone lives."""
    rounds: list[Answer] = []
    for number in range(100):
        words = ("world", "fleet") if number % 2 == 0 else ("fleet", "world")
        edit = {"path": "greeting.txt", "old_text": words[0], "new_text": words[1]}
        calls = [
            Call("edit_file", edit, f"e{number}"),
            Call("write_file", {"path": "long.txt", "content": LONG}, f"w{number}"),
            Call("bash", {"command": f"{SLEEP}; sleep 0.05"}, f"b{number}"),
        ]
        if number % 10 == 0:
            background = {"command": f"{SLEEP}; wait", "run_in_background": True}
            calls.append(Call("bash", background, f"r{number}"))
        rounds.append(Answer(thought="Hm.", text=f"Round {number}.", calls=calls))
    return rounds


async def prompt(running: Any, session_id: str, text: str) -> Any:
    return await running.connection.prompt(session_id=session_id, prompt=[acp.text_block(text)])


def check_history(turns: list[dict[str, Any]]) -> None:
    """Any endpoint would take the whole: each call has its result, right behind it."""
    assert "user" == turns[0]["type"]
    for turn, following in itertools.pairwise([*turns, {"type": "end"}]):
        if calls := [each["id"] for each in turn.get("calls", ())]:
            assert calls == [each["call_id"] for each in following.get("results", ())]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
async def test_a_session_goes_on_after_a_kill(place: Place, seed: int):
    instant = random.Random(seed).random() * 3
    async with ScriptedEndpoint(*answers()) as endpoint:
        async with place.agent(
            endpoint, EditorDouble(), CORTEX_ACP_MODE="bypassPermissions"
        ) as running:
            session = await running.connection.new_session(str(place.project))
            asking = asyncio.create_task(prompt(running, session.session_id, "go"))
            await endpoint.requested(1)
            await asyncio.sleep(instant)
            running.process.kill()
            with contextlib.suppress(ConnectionError, acp.RequestError):
                await asking
        left = place.record(session.session_id)["history"]
        endpoint.answers = [Answer(text="Done.")]
        async with place.agent(endpoint, EditorDouble()) as second:
            await second.connection.load_session(str(place.project), session.session_id)
            response = await prompt(second, session.session_id, "go on")

    assert "end_turn" == response.stop_reason
    history = place.record(session.session_id)["history"]
    check_history(history)
    assert left == history[: len(left)]
    assert (place.project / "greeting.txt").read_text() in {"hello world\n", "hello fleet\n"}
    long = place.project / "long.txt"
    assert not long.exists() or long.read_text() == LONG
    pids = place.project / "pids"
    async with asyncio.timeout(60):
        while any(map(is_running, map(int, pids.read_text().split() if pids.exists() else ()))):
            await asyncio.sleep(0.05)

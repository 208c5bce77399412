import asyncio
from pathlib import Path
from typing import Any

import pytest

from services.agent.tools.shell.bash import Bash
from services.agent.tools.shell.bash_output import BashKill, BashOutput
from services.agent.tools.tool import ToolError, ToolOutcome
from tests.doubles.processes import is_running
from tests.doubles.tool_context import context


async def test_a_command_in_the_background_is_followed_and_killed(tmp_path: Path):
    finished: list[ToolOutcome] = []

    async def finish(outcome: ToolOutcome) -> None:
        finished.append(outcome)

    given = context(tmp_path, finish=finish)
    server = {"command": "echo $$; exec sleep 600", "run_in_background": True}
    started = await Bash().run(server, given)
    silent = await BashOutput().run({"id": "b1"}, given)
    pid = int(started.text.split()[0])
    was_running = is_running(pid)
    killed = await BashKill().run({"id": "b1"}, given)

    assert started.is_going_on
    assert "goes on in the background as b1" in started.text
    assert ("[no output]\n[it still runs]", False) == (silent.text, silent.is_error)
    assert ("[no output]\n[killed]", False) == (killed.text, killed.is_error)
    assert (True, False) == (was_running, is_running(pid))
    assert [True] == [each.is_error for each in finished]


async def test_a_command_that_ends_at_once_is_answered_at_once(tmp_path: Path):
    given = context(tmp_path)
    ended = await Bash().run({"command": "echo no; exit 4", "run_in_background": True}, given)

    assert ("no\n[exit code 4]", True, False) == (ended.text, ended.is_error, ended.is_going_on)
    with pytest.raises(ToolError, match="no background command 'b9'"):
        await BashOutput().run({"id": "b9"}, given)


async def test_waiting_for_output_ends_with_the_output(tmp_path: Path):
    shown: list[Any] = []

    async def progress(content: Any) -> None:
        shown.extend(content)

    given = context(tmp_path, progress=progress)
    command = "sleep 0.8; echo ready; exec sleep 600"
    await Bash().run({"command": command, "run_in_background": True}, given)
    async with asyncio.timeout(60):
        heard = await BashOutput().run({"id": "b1", "wait_seconds": 100}, given)
    await given.background.close()

    assert "ready\n[it still runs]" == heard.text
    assert "ready\n" == shown[-1].content.text

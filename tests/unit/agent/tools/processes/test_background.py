import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from services.agent.tools.processes.background import (
    MOST_RUNNING,
    BackgroundCommand,
    BackgroundCommands,
    BackgroundError,
    News,
    Watching,
)
from tests.doubles.processes import is_running
from tests.unit.agent.tools.processes.killed_agent import kill_beside_a_command


async def nobody(_: Any) -> None:
    return


async def start(
    commands: BackgroundCommands, command: str, cwd: Path, **changes: Any
) -> BackgroundCommand:
    given: dict[str, Any] = {
        "cwd": cwd,
        "environment": os.environ,
        "seconds": None,
        "output_bytes": 1000,
        "watching": Watching(shown=nobody, ended=nobody),
    }
    return await commands.start(command, **{**given, **changes})


async def test_each_question_brings_what_is_new_and_the_last_one_the_ending(tmp_path: Path):
    commands = BackgroundCommands()
    ended: list[News] = []

    async def end(news: News) -> None:
        ended.append(news)

    os.mkfifo(tmp_path / "go")
    watching = Watching(shown=nobody, ended=end)
    script = "echo one; read x < go; echo two; exit 3"
    command = await start(commands, script, tmp_path, watching=watching)
    first = await command.news(20)
    (tmp_path / "go").write_text("\n")
    second = await command.news(20)
    while command.is_running:
        await asyncio.sleep(0.01)
    last = await command.news(0)

    assert ("one\n", "") == (first.text, first.ending)
    assert "two\n" == second.text + last.text
    assert ("exit code 3", True) == (last.ending, last.is_failure)
    assert [News("one\ntwo\n", "exit code 3", is_failure=True)] == ended


async def test_a_character_is_never_cut_between_two_answers(tmp_path: Path):
    os.mkfifo(tmp_path / "go")
    commands = BackgroundCommands()
    command = await start(commands, r"printf 'a\303'; read x < go; printf '\274b'", tmp_path)

    first = await command.news(20)
    (tmp_path / "go").write_text("\n")
    rest = ""
    while command.is_running:
        rest += (await command.news(20)).text
    rest += (await command.news(0)).text

    assert ("a", "üb") == (first.text, rest)


async def test_output_that_nobody_reads_is_bounded(tmp_path: Path):
    commands = BackgroundCommands()
    command = await start(commands, "seq 1 100000", tmp_path)
    while command.is_running:
        await asyncio.sleep(0.01)

    text = (await command.news(0)).text

    assert len(text) < 1100
    assert text.startswith("1\n2\n")
    assert text.endswith("100000\n")


async def test_no_more_than_the_bound_run_and_the_end_of_the_session_ends_them(tmp_path: Path):
    commands = BackgroundCommands()
    script = "sleep 600 & echo $! $$; wait"
    running = [await start(commands, script, tmp_path) for _ in range(MOST_RUNNING)]
    pids = [pid for each in running for pid in map(int, (await each.news(20)).text.split())]

    with pytest.raises(BackgroundError, match="b1, b2"):
        await start(commands, script, tmp_path)
    await running[0].end("killed")
    ending = await running[0].news(0)
    await start(commands, script, tmp_path)
    await commands.close()

    assert ("killed", True) == (ending.ending, ending.is_failure)
    assert [] == commands.running()
    assert 2 * MOST_RUNNING == len(pids)
    assert not any(map(is_running, pids))


async def test_what_cannot_start_and_what_takes_too_long_says_so(tmp_path: Path):
    commands = BackgroundCommands()
    with pytest.raises(BackgroundError, match="could not be started"):
        await start(commands, "true", tmp_path / "absent")
    command = await start(commands, "sleep 600", tmp_path, seconds=0.1)
    while command.is_running:
        await command.news(20)

    assert "killed after 0.1 s" == (await command.news(0)).ending
    with pytest.raises(BackgroundError, match="there are: b2"):
        commands.get("b7")


AGENT = """
import asyncio, os, pathlib, sys
from services.agent.tools.processes.background import BackgroundCommands, Watching

async def nobody(_):
    pass

async def main():
    command = await BackgroundCommands().start(
        "sleep 600 & echo $! $$ > pids.new; mv pids.new pids; wait",
        cwd=pathlib.Path(sys.argv[1]), environment=os.environ, seconds=None, output_bytes=99,
        watching=Watching(shown=nobody, ended=nobody),
    )
    await command.news(600)

asyncio.run(main())
"""


async def test_they_end_with_an_agent_that_is_killed(tmp_path: Path):
    await kill_beside_a_command(AGENT, tmp_path)

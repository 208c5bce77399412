import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from services.agent.tools.processes.process import CappedOutput, run_command
from services.backplane.timeouts import timeout
from tests.doubles.processes import is_running
from tests.unit.agent.tools.processes.killed_agent import kill_beside_a_command


@pytest.mark.parametrize("seconds", [0, 0.001, 0.003, 0.01, 0.03])
async def test_a_command_that_is_stopped_as_it_starts_leaves_nothing(
    tmp_path: Path, seconds: float
):
    mark = f"6{uuid4().int % 10**12}"  # a number of seconds that no other command sleeps

    with contextlib.suppress(TimeoutError):
        async with timeout(seconds):
            await run_command(
                ["sh", "-c", f"trap '' TERM; sleep {mark}; sleep {mark}"],
                cwd=tmp_path,
                environment=os.environ,
                output=CappedOutput(1024),
            )

    async with asyncio.timeout(60):
        while any(mark in command for command in commands()):
            await asyncio.sleep(0.01)


def commands() -> Iterator[str]:
    """What every process of this machine was started with; what is being reaped has nothing."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_text(errors="replace")


async def test_what_a_command_leaves_behind_is_ended(tmp_path: Path):
    output = CappedOutput(1024)
    await asyncio.wait_for(
        run_command(
            ["sh", "-c", "sleep 600 & echo $!"],
            cwd=tmp_path,
            environment=os.environ,
            output=output,
        ),
        20,
    )

    async with asyncio.timeout(60):
        while is_running(int(output.text())):
            await asyncio.sleep(0.01)


# `timeout` makes a process group of its own, `setsid` a session
GROUPS = ["true && timeout 600 sleep {mark}; true", "true && setsid sleep {mark}; true"]


@pytest.mark.parametrize("command", GROUPS)
async def test_groups_that_a_command_makes_are_ended_with_it(tmp_path: Path, command: str):
    mark = f"6{uuid4().int % 10**12}"
    running = asyncio.create_task(
        run_command(
            ["sh", "-c", command.format(mark=mark)],
            cwd=tmp_path,
            environment=os.environ,
            output=CappedOutput(1024),
        )
    )
    async with asyncio.timeout(60):
        while not any(each == f"sleep\0{mark}\0" for each in commands()):
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait({running})
        while any(mark in each for each in commands()):
            await asyncio.sleep(0.01)


KILLED = """
import asyncio, os, pathlib, sys
from services.agent.tools.processes.process import CappedOutput, run_command

script = "sleep 600 & a=$!; timeout 600 sleep 600 & echo $a $! $$ > pids.new; mv pids.new pids; wait"
command = ["sh", "-c", script]
asyncio.run(
    run_command(command, cwd=pathlib.Path(sys.argv[1]), environment=os.environ,
                output=CappedOutput(99))
)
"""


async def test_a_command_and_its_children_end_with_an_agent_that_is_killed(tmp_path: Path):
    await kill_beside_a_command(KILLED, tmp_path)


@pytest.mark.parametrize("size", [1, 3, 64, 1000])
def test_the_cap_keeps_both_ends_whatever_the_pieces(size: int):
    output = CappedOutput(100)
    data = b"".join(b"%04d" % n for n in range(250))
    for start in range(0, len(data), size):
        output.add(data[start : start + size])

    text = output.text()

    assert text.startswith(data[:50].decode() + "\n[... 900 bytes left out ...]\n")
    assert text.endswith(data[-50:].decode())

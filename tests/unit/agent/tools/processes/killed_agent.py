"""An agent that is killed with `kill -9` while a command of its runs."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.doubles.processes import is_running


async def kill_beside_a_command(program: str, folder: Path) -> None:
    """Returns once all that the command had started has ended.

    Args:
        program: starts one command in the folder that is its argument; the command writes the ids
            of its processes to `pids` there.
        folder: an empty one.
    """
    agent = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(folder))
    async with asyncio.timeout(60):
        # the command and its guard, which starts a moment later
        while not ((folder / "pids").exists() and len(_children(agent.pid)) > 1):
            await asyncio.sleep(0.01)

        agent.kill()
        await agent.wait()

        for pid in map(int, (folder / "pids").read_text().split()):
            while is_running(pid):
                await asyncio.sleep(0.01)


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()

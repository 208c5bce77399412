import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from services.agent.tools.shell.bash import Bash
from services.agent.tools.tool import ToolError
from tests.doubles.processes import is_running
from tests.doubles.tool_context import context


async def test_a_command_gives_output_and_exit_code(tmp_path: Path):
    good = await Bash().run({"command": "echo hi; echo err >&2"}, context(tmp_path))
    bad = await Bash().run({"command": "exit 3"}, context(tmp_path))
    reader = await Bash().run({"command": "cat"}, context(tmp_path))

    assert ("hi\nerr", False) == (good.text, good.is_error)
    assert ("[no output]\n[exit code 3]", True) == (bad.text, bad.is_error)
    assert not reader.is_error
    with pytest.raises(ToolError, match="could not be started"):
        await Bash().run({"command": "ls", "cwd": "absent"}, context(tmp_path))


async def test_a_command_that_takes_too_long_is_killed_with_what_it_printed(tmp_path: Path):
    command = "echo early; echo $$ > pid; trap '' TERM; sleep 600; sleep 600"
    shown = asyncio.Event()

    async def progress(_: Sequence[Any]) -> None:
        shown.set()

    outcome = await Bash().run(
        {"command": command, "timeout_seconds": 0.3}, context(tmp_path, progress=progress)
    )

    assert outcome.is_error
    assert "killed after 0.3 s" in outcome.text
    async with asyncio.timeout(60):
        while is_running(int((tmp_path / "pid").read_text())):
            await asyncio.sleep(0.01)


async def test_what_a_command_printed_before_it_was_killed_is_told(tmp_path: Path):
    """A server says where it listens, and goes on for ever."""
    shown: list[Any] = []

    async def progress(content: Sequence[Any]) -> None:
        shown.extend(content)

    outcome = await Bash().run(
        {"command": "echo listening on 8080; exec sleep 600", "timeout_seconds": 0.4},
        context(tmp_path, progress=progress),
    )

    assert outcome.text.startswith("listening on 8080")
    assert "killed after 0.4 s" in outcome.text
    assert shown, "and who looks on has seen it meanwhile"


async def test_endless_output_is_capped(tmp_path: Path):
    outcome = await Bash().run({"command": "seq 1 200000"}, context(tmp_path))

    assert len(outcome.text) < 4300
    assert outcome.text.startswith("1\n2\n")
    assert outcome.text.endswith("199999\n200000")
    assert "bytes left out" in outcome.text


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ({"command": "ls"}, ""),
        ({"command": "ls", "cwd": "/etc", "run_in_background": True}, "in /etc\nin the background"),
        ({"command": f"echo {'a' * 100}; rm x"}, f"```\necho {'a' * 100}; rm x\n```"),
        ({"command": "a\nb ``` c"}, "````\na\nb ``` c\n````"),
        ({"command": "ls \u202egnp"}, "```\nls \\u202egnp\n```"),
    ],
)
async def test_who_allows_a_command_sees_all_of_it(
    tmp_path: Path, arguments: dict[str, Any], shown: str
):
    content = await Bash().diff(arguments, context(tmp_path))

    assert shown == "".join(each.content.text for each in content)

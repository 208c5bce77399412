import asyncio
import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from services.agent.core.editor import EditorError, Offered
from services.agent.core.workspace import Workspace
from services.agent.tools.bash import Bash
from services.agent.tools.builtin import builtin_tools
from services.agent.tools.edit_file import Arguments, EditFile, edited
from services.agent.tools.files import replace_file
from services.agent.tools.glob import Glob, compiled
from services.agent.tools.grep import Grep
from services.agent.tools.list_dir import ListDir
from services.agent.tools.process import CappedOutput, run_command
from services.agent.tools.read_file import ReadFile
from services.agent.tools.tool import ToolContext, ToolError
from services.agent.tools.write_file import WriteFile
from services.backplane.timeouts import timeout


class RefusingEditor:
    """An editor that offers files and refuses those outside its workspace."""

    offered = Offered(reads=True, writes=True)

    async def read(self, path: Path) -> str:
        raise EditorError("outside of the workspace")


class NoEditor:
    offered = Offered()


def context(cwd: Path, editor: Any = None, **changes: Any) -> ToolContext:
    async def progress(_: Sequence[Any]) -> None:
        return

    given: dict[str, Any] = {
        "workspace": Workspace(str(cwd), [], environment={"HOME": str(cwd)}),
        "editor": editor or NoEditor(),
        "permit": lambda path: path and Path(os.path.realpath(path)),
        "progress": progress,
        "environment": dict(os.environ),
        "output_bytes": 4096,
        "bash_seconds": 30.0,
    }
    return ToolContext(**{**given, **changes})


def is_running(pid: int) -> bool:
    """Whether a process is there and not only waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_names_are_unique_and_schemas_are_plain():
    specs = [tool.spec for tool in builtin_tools()]

    assert len(specs) == len({spec.name for spec in specs})
    for spec in specs:
        assert "object" == spec.parameters["type"]
        assert "$ref" not in str(spec.parameters)


async def test_reading_lines_and_their_limits(tmp_path: Path):
    (tmp_path / "a").write_text("".join(f"line {n}\n" for n in range(1, 1001)))
    tool = ReadFile()

    some = await tool.run({"path": "a", "line": "3", "limit": 2}, context(tmp_path))
    whole = await tool.run({"path": "$HOME/a"}, context(tmp_path, output_bytes=1024))

    assert "line 3\nline 4\n" == some.text
    assert len(whole.text) < 1200
    assert "go on with line=" in whole.text
    with pytest.raises(ToolError, match="only 1000 lines"):
        await tool.run({"path": "a", "line": 2000}, context(tmp_path))


@pytest.mark.parametrize(
    ("path", "complaint"),
    [("absent", "No such file"), (".", "use list_dir"), ("bin", "not UTF-8"), ("a\0b", "no path")],
)
async def test_what_cannot_be_read_says_why(tmp_path: Path, path: str, complaint: str):
    (tmp_path / "bin").write_bytes(b"\xff\xfe")

    with pytest.raises(ToolError, match=complaint):
        await ReadFile().run({"path": path}, context(tmp_path))


async def test_a_read_that_the_editor_refuses_is_done_locally(tmp_path: Path):
    (tmp_path / "a").write_text("text")

    outcome = await ReadFile().run({"path": "a"}, context(tmp_path, RefusingEditor()))

    assert "text" == outcome.text
    with pytest.raises(ToolError, match=r"No such file.*outside of the workspace"):
        await ReadFile().run({"path": "absent"}, context(tmp_path, RefusingEditor()))


async def test_a_write_outside_the_project_does_not_go_through_the_editor(tmp_path: Path):
    (tmp_path / "proj").mkdir()
    target = tmp_path / "plans/deep/01.md"

    await WriteFile().run(
        {"path": str(target), "content": "plan"}, context(tmp_path / "proj", RefusingEditor())
    )

    assert "plan" == target.read_text()


async def test_bad_arguments_are_the_models_to_mend(tmp_path: Path):
    with pytest.raises(ToolError, match="path"):
        await WriteFile().run({"content": "x"}, context(tmp_path))
    with pytest.raises(ToolError, match="bad arguments"):
        ReadFile().preview({"path": ["a"]}, context(tmp_path).workspace)


def test_edits_are_exact():
    def edit(text: str, old: str, new: str, *, every: bool = False) -> str:
        return edited(text, Arguments("f", old, new, replace_all=every))

    assert "a2c" == edit("abc", "b", "2")
    assert "2a2" == edit("bab", "b", "2", every=True)
    assert "x\r\ny\r\n" == edit("a\r\nb\r\n", "a\nb", "x\ny")
    with pytest.raises(ToolError, match="occurs 2 times"):
        edit("bab", "b", "2")
    with pytest.raises(ToolError, match="does not occur"):
        edit("abc", "z", "2")
    with pytest.raises(ToolError, match="empty"):
        edit("abc", "", "2")


async def test_an_edit_keeps_permissions_and_line_ends(tmp_path: Path):
    script = tmp_path / "run.sh"
    script.write_bytes(b"one\r\ntwo\r\n")
    script.chmod(0o755)

    outcome = await EditFile().run(
        {"path": "run.sh", "old_text": "two", "new_text": "2"}, context(tmp_path)
    )

    assert "line 2" in outcome.text
    assert b"one\r\n2\r\n" == script.read_bytes()
    assert 0o755 == script.stat().st_mode & 0o777


def test_a_planted_link_is_not_written_through(tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "victim").write_text("safe")
    (tmp_path / "a").symlink_to(outside)
    (tmp_path / "b").symlink_to(outside / "victim")

    with pytest.raises(OSError, match="become a link"):
        replace_file(tmp_path / "a" / "new", b"x")
    replace_file(tmp_path / "b", b"x")

    assert [outside / "victim"] == list(outside.iterdir())
    assert "safe" == (outside / "victim").read_text()


async def test_listing_says_what_each_entry_is(tmp_path: Path):
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("dir")

    outcome = await ListDir().run({}, context(tmp_path))

    assert "d dir\nf file\nl link" == outcome.text


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("*.py", ["a.py", "x/y/a.py"], ["a.pyc"]),
        ("src/*.py", ["src/a.py"], ["src/x/a.py", "a.py"]),
        ("src/**/*.py", ["src/a.py", "src/x/y/a.py"], ["a.py"]),
        ("**", ["a", "x/y"], []),
        ("a.{ts,tsx}", ["a.ts", "q/a.tsx"], ["a.tsxx"]),
        ("a?.[x]", ["ab.[x]"], ["ab.x"]),
    ],
)
def test_glob_patterns(pattern: str, matching: list[str], other: list[str]):
    assert all(compiled(pattern).fullmatch(name) for name in matching)
    assert not any(compiled(pattern).fullmatch(name) for name in other)


async def test_globbing_and_searching_skip_what_nobody_wants(tmp_path: Path):
    for name in ("src/a.py", "node_modules/b.py", ".git/c.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("needle here\n")

    found = await Glob().run({"pattern": "**/*.py"}, context(tmp_path))
    lines = await Grep().run({"pattern": "NEEDLE", "ignore_case": True}, context(tmp_path))
    nothing = await Grep().run({"pattern": "absent"}, context(tmp_path))
    broken = await Grep().run({"pattern": "("}, context(tmp_path))

    assert "src/a.py" == found.text
    assert "src/a.py:1:needle here" == lines.text
    assert "[nothing matches]" == nothing.text
    assert "(" in broken.text or broken.is_error


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
    async with asyncio.timeout(10):
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

    async with asyncio.timeout(10):
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

    async with asyncio.timeout(10):
        while is_running(int(output.text())):
            await asyncio.sleep(0.01)


async def test_endless_output_is_capped(tmp_path: Path):
    outcome = await Bash().run({"command": "seq 1 200000"}, context(tmp_path))

    assert len(outcome.text) < 4300
    assert outcome.text.startswith("1\n2\n")
    assert outcome.text.endswith("199999\n200000")
    assert "bytes left out" in outcome.text


@pytest.mark.parametrize("size", [1, 3, 64, 1000])
def test_the_cap_keeps_both_ends_whatever_the_pieces(size: int):
    output = CappedOutput(100)
    data = b"".join(b"%04d" % n for n in range(250))
    for start in range(0, len(data), size):
        output.add(data[start : start + size])

    text = output.text()

    assert text.startswith(data[:50].decode() + "\n[... 900 bytes left out ...]\n")
    assert text.endswith(data[-50:].decode())

from pathlib import Path

import pytest

from services.agent.tools.read_file import ReadFile
from services.agent.tools.tool import ToolError
from tests.doubles.tool_context import RefusingEditor, context


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


async def test_lines_are_counted_as_editors_count_them(tmp_path: Path):
    (tmp_path / "a").write_bytes("one\x0c\u2028\x85 still one\r\ntwo\nthree".encode())

    async def lines(line: int) -> str:
        arguments = {"path": "a", "line": line, "limit": 1}
        return (await ReadFile().run(arguments, context(tmp_path))).text

    assert "one\x0c\u2028\x85 still one\r\n" == await lines(1)
    assert "two\n" == await lines(2)
    assert "three" == await lines(3)

from pathlib import Path

import pytest

from services.agent.tools.edit_file import EditFile, EditFileArguments, edited
from services.agent.tools.tool import ToolError
from tests.doubles.tool_context import context


def test_edits_are_exact():
    def edit(text: str, old: str, new: str, *, every: bool = False) -> str:
        return edited(text, EditFileArguments("f", old, new, replace_all=every))

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

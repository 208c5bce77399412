from pathlib import Path

import pytest

from services.agent.core.text import cut_middle
from services.agent.tools.edit_file import EditFile
from services.agent.tools.files import replace_file
from services.agent.tools.tool import ToolError
from services.agent.tools.write_file import WriteFile
from tests.doubles.tool_context import context


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


@pytest.mark.parametrize(
    "mark",
    [
        cut_middle("b" * 500, 100).strip("b\n"),
        "[left out to save room: 500 characters]",
        "[cut here; go on with line=3 of 90]",
        "[the line was cut here]",
    ],
)
async def test_no_file_is_replaced_by_what_a_model_was_not_shown(tmp_path: Path, mark: str):
    path = tmp_path / "a.py"
    path.write_text("one\ntwo\n")
    whole = {"path": "a.py", "content": f"one\n{mark}\n"}
    piece = {"path": "a.py", "old_text": "two", "new_text": mark}

    for tool, arguments in ((WriteFile(), whole), (EditFile(), piece)):
        with pytest.raises(ToolError, match="not shown"):
            await tool.run(arguments, context(tmp_path))
    assert "one\ntwo\n" == path.read_text()

    path.write_text(f"one\n{mark}\n")  # a file that is about such marks
    await WriteFile().run({"path": "a.py", "content": f"two\n{mark}\n"}, context(tmp_path))
    assert path.read_text().startswith("two")

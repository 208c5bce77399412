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


@pytest.mark.parametrize(
    ("text", "old", "new", "after"),
    [
        ("a\r\nb\r\n", "b", "b\nc", "a\r\nb\r\nc\r\n"),  # the old text alone has no line end
        ("a\r\nb", "b", "b\nc", "a\r\nb\r\nc"),
        ("a\r\nb\nc\n", "a\nb\nc", "1\n2", "1\r\n2\n"),  # mixed: each as where it stands
        ("a\r\nb\nc\n", "b\nc", "1\n2", "a\r\n1\n2\n"),
        ("a\nb\n", "a\r\nb", "1\r\n2", "1\n2\n"),
        ("a\r\nb\r\n", "a\r\nb", "1\r\n2", "1\r\n2\r\n"),
        ("\ufeffa\r\nb\r\n", "a", "1\n2", "\ufeff1\r\n2\r\nb\r\n"),
        ("a\r\nb\r\n", "\r\n", "\n", "a\nb\n"),  # line ends are what it is about
        ("caf\u0065\u0301 x\n", "caf\u00e9 x", "caf\u00e9 y", "caf\u0065\u0301 y\n"),
        ("a\\1.b", "a\\1.b", "\\g<0>", "\\g<0>"),  # nothing in it is a pattern
    ],
)
def test_line_ends_and_letters_stay_as_the_file_has_them(text: str, old: str, new: str, after: str):
    assert after == edited(text, EditFileArguments("f", old, new, replace_all=old == "\r\n"))


async def test_the_line_of_an_edit_is_told_where_line_ends_differ(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"one\r\ntwo\r\nthree\r\nfour\r\n")

    outcome = await EditFile().run(
        {"path": "a", "old_text": "two\nthree", "new_text": "2\n3"}, context(tmp_path)
    )

    assert outcome.text.endswith("line 2")
    assert b"one\r\n2\r\n3\r\nfour\r\n" == (tmp_path / "a").read_bytes()

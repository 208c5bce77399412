import os
from pathlib import Path

import pytest

from services.agent.tools.tool import ToolError
from services.agent.tools.write_file import WriteFile
from tests.doubles.tool_context import RefusingEditor, context


async def test_a_write_outside_the_project_does_not_go_through_the_editor(tmp_path: Path):
    (tmp_path / "proj").mkdir()
    target = tmp_path / "plans/deep/01.md"

    await WriteFile().run(
        {"path": str(target), "content": "plan"}, context(tmp_path / "proj", RefusingEditor())
    )

    assert "plan" == target.read_text()


@pytest.mark.parametrize(
    ("before", "content", "after"),
    [
        (b"a\r\nb\r\n", "1\n2\n", b"1\r\n2\r\n"),
        (b"\xef\xbb\xbfa\r\n", "1\n", b"\xef\xbb\xbf1\r\n"),
        (b"\xef\xbb\xbfa\n", "\ufeff1\n", b"\xef\xbb\xbf1\n"),
        (b"a\r\nb\n", "1\n2\n", b"1\n2\n"),  # mixed: nothing to keep
        (b"a\r\n", "1\r\n2\n", b"1\r\n2\n"),  # the model writes them itself
        (b"", "1\n", b"1\n"),
    ],
)
async def test_a_file_keeps_its_byte_order_mark_and_line_ends(
    tmp_path: Path, before: bytes, content: str, after: bytes
):
    path = tmp_path / "a"
    path.write_bytes(before)

    await WriteFile().run({"path": "a", "content": content}, context(tmp_path))

    assert after == path.read_bytes()


async def test_what_cannot_be_shown_is_not_replaced(tmp_path: Path):
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "locked").write_text("as it was")
    (tmp_path / "locked").chmod(0o444)

    complaints = {"latin": "not UTF-8", "pipe": "not a regular file", "locked": "read-only"}
    for name, complaint in complaints.items():
        with pytest.raises(ToolError, match=complaint):
            await WriteFile().run({"path": name, "content": "x"}, context(tmp_path))

    assert b"caf\xe9" == (tmp_path / "latin").read_bytes()
    assert "as it was" == (tmp_path / "locked").read_text()


async def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path: Path):
    name = "字" * 85  # 255 bytes

    await WriteFile().run({"path": name, "content": "x"}, context(tmp_path))

    assert "x" == (tmp_path / name).read_text()

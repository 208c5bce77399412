from pathlib import Path

from services.agent.tools.write_file import WriteFile
from tests.doubles.tool_context import RefusingEditor, context


async def test_a_write_outside_the_project_does_not_go_through_the_editor(tmp_path: Path):
    (tmp_path / "proj").mkdir()
    target = tmp_path / "plans/deep/01.md"

    await WriteFile().run(
        {"path": str(target), "content": "plan"}, context(tmp_path / "proj", RefusingEditor())
    )

    assert "plan" == target.read_text()

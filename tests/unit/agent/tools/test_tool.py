from pathlib import Path

import pytest

from services.agent.tools.read_file import ReadFile
from services.agent.tools.tool import ToolError
from services.agent.tools.write_file import WriteFile
from tests.doubles.tool_context import context


async def test_bad_arguments_are_the_models_to_mend(tmp_path: Path):
    with pytest.raises(ToolError, match="path"):
        await WriteFile().run({"content": "x"}, context(tmp_path))
    with pytest.raises(ToolError, match="bad arguments"):
        ReadFile().preview({"path": ["a"]}, context(tmp_path).workspace)

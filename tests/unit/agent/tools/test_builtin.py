from pathlib import Path

from services.agent.core.settings import FleetToolSettings
from services.agent.core.workspace import Workspace
from services.agent.tools.builtin import builtin_tools


def test_names_are_unique_and_schemas_are_plain():
    specs = [tool.spec for tool in builtin_tools(FleetToolSettings(url="http://h:1"))]

    assert len(specs) == len({spec.name for spec in specs})
    for spec in specs:
        assert "object" == spec.parameters["type"]
        assert "$ref" not in str(spec.parameters)


def test_every_read_says_which_file_to_follow():
    workspace = Workspace("/project", (), environment={})
    tools = {tool.spec.name: tool for tool in builtin_tools(FleetToolSettings(url="http://h:1"))}

    for name in ("read_file", "list_dir", "grep", "glob"):
        preview = tools[name].preview({"path": "a", "pattern": "b"}, workspace)
        assert ((Path("/project/a"), None),) == preview.locations

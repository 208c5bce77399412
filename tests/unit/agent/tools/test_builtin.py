from services.agent.core.settings import FleetSettings
from services.agent.tools.builtin import builtin_tools


def test_names_are_unique_and_schemas_are_plain():
    specs = [tool.spec for tool in builtin_tools(FleetSettings(url="http://h:1"))]

    assert len(specs) == len({spec.name for spec in specs})
    for spec in specs:
        assert "object" == spec.parameters["type"]
        assert "$ref" not in str(spec.parameters)

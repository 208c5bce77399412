from services.agent.core.history import ToolCall, ToolResult
from services.agent.core.settings import FleetToolSettings
from services.agent.tools.builtin import builtin_tools
from services.agent.turn.repeats import Repeats

TOOLS = {tool.spec.name: tool for tool in builtin_tools(FleetToolSettings())}


def add(repeats: Repeats, name: str, argument: str, *, text: str = "no", is_error: bool = True):
    call = ToolCall("c", name, {"path": argument})
    return repeats.add(call, ToolResult("c", name, text, is_error), TOOLS)


def test_the_third_failure_of_a_kind_is_the_last():
    repeats = Repeats()

    assert [False, False, True] == [add(repeats, "bash", "a") for _ in range(3)]


def test_another_call_and_another_failure_are_counted_by_themselves():
    repeats = Repeats()
    for _ in range(2):
        assert not add(repeats, "bash", "a")
        assert not add(repeats, "bash", "b")
        assert not add(repeats, "bash", "a", text="other")

    assert add(repeats, "bash", "b")


def test_a_change_begins_the_count_anew_and_a_read_does_not():
    repeats = Repeats()
    for _ in range(2):
        add(repeats, "bash", "a")
    add(repeats, "edit_file", "x", is_error=False)
    assert [False, False] == [add(repeats, "bash", "a") for _ in range(2)]
    for name in ("read_file", "update_plan"):
        add(repeats, name, "x", is_error=False)

    assert add(repeats, "bash", "a")

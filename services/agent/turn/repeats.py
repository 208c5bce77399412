"""Sees a model that makes the same failing call again and again. Pure."""

from collections.abc import Mapping

from services.agent.core.history import ToolCall, ToolResult
from services.agent.core.modes import Effect
from services.agent.tools.tool import Tool

MOST = 3
_HARMLESS = {Effect.NOTHING, Effect.READ, Effect.FOREIGN_READ, Effect.FETCH}


class Repeats:
    """Counts the calls of one prompt that failed in the same way since something was changed.

    A call that changes the world, such as an edit between two runs of a test, starts the count
    anew; a read does not.
    """

    def __init__(self) -> None:
        self._failed: dict[str, int] = {}

    def add(self, call: ToolCall, result: ToolResult, tools: Mapping[str, Tool]) -> bool:
        """Counts a call; returns whether it is the last one that makes sense."""
        if not result.is_error:
            tool = tools.get(call.name)
            if tool is None or tool.effect not in _HARMLESS:
                self._failed.clear()
            return False
        key = repr((call.name, call.arguments, call.raw, result.text))
        self._failed[key] = self._failed.get(key, 0) + 1
        return self._failed[key] >= MOST

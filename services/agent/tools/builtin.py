"""The tools that every session has."""

from collections.abc import Sequence

from services.agent.core.modes import Effect, Mode
from services.agent.core.settings import FleetToolSettings
from services.agent.tools.edit_file import EditFile
from services.agent.tools.exit_plan_mode import ExitPlanMode
from services.agent.tools.fleet.operating import fleet_tools
from services.agent.tools.glob import Glob
from services.agent.tools.grep import Grep
from services.agent.tools.list_dir import ListDir
from services.agent.tools.read_file import ReadFile
from services.agent.tools.search_agent import SearchAgent
from services.agent.tools.shell.bash import Bash
from services.agent.tools.shell.bash_output import BashKill, BashOutput
from services.agent.tools.tool import Tool
from services.agent.tools.update_plan import UpdatePlan
from services.agent.tools.web.web_fetch import WebFetch
from services.agent.tools.write_file import WriteFile

_NOT_TO_PLAN_WITH = frozenset({Effect.EXECUTE, Effect.OPERATE})


def offered(tools: Sequence[Tool], mode: Mode) -> tuple[Tool, ...]:
    """Returns those that a model is shown in a mode: no commands to plan with, no plan to leave."""
    if mode is Mode.PLAN:
        return tuple(tool for tool in tools if tool.effect not in _NOT_TO_PLAN_WITH)
    return tuple(tool for tool in tools if tool.spec.name != ExitPlanMode.name)


def builtin_tools(fleet: FleetToolSettings) -> tuple[Tool, ...]:
    """Returns one of each, in the order in which models see them.

    Args:
        fleet: whether, and of which fleet, there are operators' tools.
    """
    return (
        ReadFile(),
        WriteFile(),
        EditFile(),
        ListDir(),
        Grep(),
        Glob(),
        SearchAgent(),
        Bash(),
        BashOutput(),
        BashKill(),
        WebFetch(),
        UpdatePlan(),
        ExitPlanMode(),
        *fleet_tools(fleet),
    )

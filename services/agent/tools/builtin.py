"""The tools that every session has."""

from services.agent.tools.bash import Bash
from services.agent.tools.edit_file import EditFile
from services.agent.tools.glob import Glob
from services.agent.tools.grep import Grep
from services.agent.tools.list_dir import ListDir
from services.agent.tools.read_file import ReadFile
from services.agent.tools.tool import Tool
from services.agent.tools.update_plan import UpdatePlan
from services.agent.tools.write_file import WriteFile


def builtin_tools() -> tuple[Tool, ...]:
    """Returns one of each, in the order in which models see them."""
    return (
        ReadFile(),
        WriteFile(),
        EditFile(),
        ListDir(),
        Grep(),
        Glob(),
        Bash(),
        UpdatePlan(),
    )

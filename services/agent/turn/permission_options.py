"""What a user may answer when a call asks for permission. Pure."""

import acp.schema

from services.agent.core.permissions import LONGEST_RULE
from services.agent.core.text import one_line

ALLOW = acp.schema.PermissionOption(option_id="allow", name="Allow", kind="allow_once")
ALWAYS = acp.schema.PermissionOption(
    option_id="allow-always", name="Allow for this session", kind="allow_always"
)
LASTING = "allow-lasting"
REJECT = acp.schema.PermissionOption(option_id="reject", name="Reject", kind="reject_once")


def permission_options(rule: str) -> tuple[acp.schema.PermissionOption, ...]:
    """Returns the options, with one that keeps a rule where there is one to keep."""
    if not rule:
        return (ALLOW, ALWAYS, REJECT)
    name = f"Always in this project: {one_line(rule, LONGEST_RULE)}"
    lasting = acp.schema.PermissionOption(option_id=LASTING, name=name, kind="allow_always")
    return (ALLOW, ALWAYS, lasting, REJECT)

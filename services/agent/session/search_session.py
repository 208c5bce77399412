"""A session inside a session: a conversation of its own, under the rules of the one around it."""

import msgspec
from typing_extensions import override

from services.agent.core.editor import Editor
from services.agent.core.modes import Mode
from services.agent.session.mcp_servers import McpServers
from services.agent.session.session import AgentSession
from services.agent.storage.projection import Marks


class SearchSession(AgentSession):
    """A search on behalf of a session.

    It begins without history and is never saved. The mode, what the user has granted and the ids
    of calls are those of the session around it, at every moment; so is its being cancelled.
    """

    def __init__(self, outer: AgentSession, editor: Editor) -> None:
        record = msgspec.structs.replace(outer.record, history=[], marks=Marks())
        super().__init__(
            record=record,
            store=outer._store,  # noqa: SLF001 - it is one of them
            editor=editor,
            workspace=outer.workspace,
            plans=outer.plans,
            mcp=McpServers((), cwd=outer.workspace.cwd, environment={}),
            permissions=outer.permissions,
            checkpoints=outer.checkpoints,
        )
        self._outer = outer
        self.granted = outer.granted
        self.text_only = outer.text_only
        self.characters_per_token = outer.characters_per_token

    @override
    def new_call_id(self, wanted: str) -> str:
        return self._outer.new_call_id(wanted)

    @property
    @override
    def mode(self) -> Mode:
        return self._outer.mode

    @property
    @override
    def is_cancelled(self) -> bool:
        return self._outer.is_cancelled

    @override
    async def save(self) -> bool:
        return True

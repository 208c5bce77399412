"""Makes sessions: the parts that a new, loaded or forked one is built from."""

import asyncio
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import acp.interfaces

from services.agent.core.editor import Editor, Offered
from services.agent.core.modes import Mode
from services.agent.core.plan_dir import PlanDirectory, project_id
from services.agent.core.settings import AgentSettings
from services.agent.core.workspace import Workspace
from services.agent.endpoints.endpoint import ToolSpec
from services.agent.prompt import prompt
from services.agent.prompt.rules import RulesFile, fitted, read_rules
from services.agent.session.mcp_servers import McpServers, ServerSpec
from services.agent.session.session import AgentSession
from services.agent.storage.checkpoints import FileCheckpoints
from services.agent.storage.permission_file import PermissionFile
from services.agent.storage.store import SessionRecord, SessionStore
from services.agent.turn.ask import PromptBuilder


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentEnvironment:
    """Where the agent runs.

    Attributes:
        environment: of the process; commands and MCP servers inherit it.
        data: the directory of sessions and plans, None when neither XDG nor HOME names one.
        config: the directory of the user's own AGENTS.md and of lasting permissions.
        today: the ISO date of the moment.
    """

    environment: Mapping[str, str]
    data: Path | None
    config: Path
    today: Callable[[], str]


class SessionOpening:
    """Builds sessions for one connection to an editor."""

    def __init__(
        self,
        *,
        settings: AgentSettings,
        surroundings: AgentEnvironment,
        store: SessionStore,
        base: str,
    ) -> None:
        self._settings = settings
        self._surroundings = surroundings
        self._store = store
        self._base = base

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment of commands."""
        return self._surroundings.environment

    def open(
        self,
        record: SessionRecord,
        *,
        connection: acp.interfaces.Client,
        offered: Offered,
        servers: Sequence[ServerSpec],
    ) -> AgentSession:
        """Returns the session of a record; its MCP servers begin to connect."""
        environment = self._surroundings.environment
        return AgentSession(
            record=record,
            store=self._store,
            editor=Editor(
                connection,
                session_id=record.session_id,
                offered=offered,
                seconds=self._settings.client_seconds,
            ),
            workspace=Workspace(record.cwd, record.additional_directories, environment=environment),
            plans=PlanDirectory(self._surroundings.data, record.cwd),
            checkpoints=self.checkpoints(record.session_id),
            permissions=PermissionFile(
                self._surroundings.config / "permissions" / f"{project_id(record.cwd)}.rules",
                record.cwd,
            ),
            mcp=McpServers(servers, cwd=Path(record.cwd), environment=environment),
        )

    def checkpoints(self, session_id: str) -> FileCheckpoints:
        """Returns what a session's writes have replaced; the id is one of ours."""
        data = self._surroundings.data
        return FileCheckpoints(data and data / "checkpoints" / session_id)

    async def prepare(self, session: AgentSession) -> PromptBuilder:
        """Reads what the next round's system prompt depends on, apart from the tools' format."""
        rules, plans = await asyncio.to_thread(self._read, session)
        mode = session.mode
        surroundings = self._facts(session)

        def build(text_tools: Sequence[ToolSpec], longest_rules: int | None) -> str:
            shown = rules if longest_rules is None else fitted(rules, longest_rules)
            if shown != rules:
                session.tell_once("The AGENTS.md files are too long for the model's window: cut.")
            return prompt.system_prompt(
                base=self._base,
                surroundings=surroundings,
                rules=shown,
                mode=mode,
                plan_directory=plans,
                text_tools=text_tools,
            )

        return build

    async def prepare_search(self, session: AgentSession) -> PromptBuilder:
        """Does the same for a search on behalf of a session."""
        surroundings = self._facts(session)

        def build(text_tools: Sequence[ToolSpec], _: int | None) -> str:
            return prompt.search_prompt(surroundings, text_tools)

        return build

    def _facts(self, session: AgentSession) -> prompt.PromptFacts:
        return prompt.PromptFacts(
            cwd=session.workspace.cwd,
            additional=session.workspace.roots[1:],
            platform=f"{platform.system()} {platform.machine()}",
            today=self._surroundings.today(),
        )

    def _read(self, session: AgentSession) -> tuple[tuple[RulesFile, ...], Path | None]:
        rules = read_rules(session.workspace.cwd, self._surroundings.config)
        is_plan = session.mode is Mode.PLAN
        return rules, session.plans.create() if is_plan else session.plans.resolved()

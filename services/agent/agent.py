"""The agent's side of the Agent Client Protocol: each method, and the sessions it acts on."""

import asyncio
import functools
from collections.abc import Coroutine
from typing import Any

import acp
import acp.interfaces
import acp.schema
import structlog

import services
from services.agent import options
from services.agent.core.editor import Offered
from services.agent.core.settings import AgentSettings
from services.agent.endpoints.selection import Endpoints
from services.agent.prompt.prompt_input import Block, user_parts
from services.agent.session.mcp_servers import ServerSpec
from services.agent.session.session import AgentSession
from services.agent.session_service.opening import AgentEnvironment, SessionOpening
from services.agent.session_service.prompting import Prompting
from services.agent.session_service.session_options import SessionOptions
from services.agent.session_service.sessions import (
    OpenSessions,
    checked_directories,
    plain,
    session_info,
)
from services.agent.storage.store import SessionStore
from services.agent.tools.builtin import builtin_tools

log = structlog.get_logger(__name__)


class CortexAgent:
    """Implements `acp.Agent` for one editor.

    Close it when the connection has ended.
    """

    def __init__(
        self,
        *,
        settings: AgentSettings,
        surroundings: AgentEnvironment,
        store: SessionStore,
        endpoints: Endpoints,
        base_prompt: str,
    ) -> None:
        self._settings = settings
        self._store = store
        self._endpoints = endpoints
        opening = SessionOpening(
            settings=settings, surroundings=surroundings, store=store, base=base_prompt
        )
        tools = builtin_tools(settings.fleet)
        self._options = SessionOptions(endpoints)
        self._prompting = Prompting(
            settings=settings,
            endpoints=endpoints,
            opening=opening,
            options=self._options,
            tools=tools,
        )
        self._sessions = OpenSessions(store=store, opening=opening, tools=tools)
        self._background: set[asyncio.Task[None]] = set()

    def on_connect(self, conn: acp.interfaces.Client) -> None:
        """Takes the editor's side of the connection."""
        self._sessions.connection = conn

    async def initialize(
        self,
        protocol_version: int,
        client_capabilities: acp.schema.ClientCapabilities | None = None,
        client_info: acp.schema.Implementation | None = None,
        **kwargs: Any,
    ) -> acp.schema.InitializeResponse:
        """Agrees on the protocol's version and says what this agent can do."""
        self._sessions.offered = Offered.of(client_capabilities)
        name = client_info.name if client_info else "unknown"
        log.info("editor connected", editor=name, offered=str(self._sessions.offered))
        self._later(self._sessions.tidy(kept=self._settings.sessions_kept))
        return acp.schema.InitializeResponse(
            protocol_version=acp.PROTOCOL_VERSION,
            agent_info=acp.schema.Implementation(
                name="cortex-acp", title="Cortex", version=services.__version__
            ),
            agent_capabilities=options.capabilities(can_see=await self._endpoints.can_see()),
            auth_methods=[],
        )

    async def authenticate(self, method_id: str, **kwargs: Any) -> None:
        """Refuses: keys belong into the settings."""
        raise acp.RequestError.invalid_params({"reason": "no authentication is offered"})

    async def new_session(
        self,
        cwd: str,
        additional_directories: list[str] | None = None,
        mcp_servers: list[ServerSpec] | None = None,
        **kwargs: Any,
    ) -> acp.schema.NewSessionResponse:
        """Starts a session with the default model and mode."""
        cwd, additional_directories = checked_directories(cwd, additional_directories)
        record = self._store.create(
            cwd=cwd, mode=self._settings.mode.value, model=await self._endpoints.default()
        )
        record.additional_directories = list(additional_directories or ())
        await self._store.claim(record.session_id)
        session = self._sessions.open(record, mcp_servers)
        await session.save()
        log.info("session created", session_id=record.session_id, cwd=cwd, model=record.model)
        self._later(self._sessions.offer_commands(session))
        return acp.schema.NewSessionResponse(
            session_id=record.session_id,
            modes=options.modes(session.mode),
            config_options=await self._offered(session),
        )

    async def load_session(
        self,
        cwd: str,
        session_id: str,
        mcp_servers: list[ServerSpec] | None = None,
        additional_directories: list[str] | None = None,
        **kwargs: Any,
    ) -> acp.schema.LoadSessionResponse:
        """Opens a stored session; its history is shown before the response."""
        session = await self._sessions.reopen(session_id, cwd, additional_directories, mcp_servers)
        await self._sessions.replay(session)
        return acp.schema.LoadSessionResponse(
            modes=options.modes(session.mode),
            config_options=await self._offered(session),
        )

    async def resume_session(
        self,
        session_id: str,
        cwd: str,
        additional_directories: list[str] | None = None,
        mcp_servers: list[ServerSpec] | None = None,
        **kwargs: Any,
    ) -> acp.schema.ResumeSessionResponse:
        """Opens a stored session without showing its history again."""
        session = await self._sessions.reopen(session_id, cwd, additional_directories, mcp_servers)
        self._later(self._sessions.offer_commands(session))
        return acp.schema.ResumeSessionResponse(
            modes=options.modes(session.mode),
            config_options=await self._offered(session),
        )

    async def fork_session(
        self,
        session_id: str,
        cwd: str,
        additional_directories: list[str] | None = None,
        mcp_servers: list[ServerSpec] | None = None,
        **kwargs: Any,
    ) -> acp.schema.ForkSessionResponse:
        """Starts a session with a copy of another's history."""
        cwd, additional_directories = checked_directories(cwd, additional_directories)
        origin = await self._sessions.stored(session_id)
        record = self._store.create(cwd=cwd, mode=origin.mode, model=origin.model)
        record.additional_directories = list(additional_directories or ())
        record.history, record.marks, record.title = [*origin.history], origin.marks, origin.title
        record.model_options = origin.model_options
        await self._store.claim(record.session_id)
        session = self._sessions.open(record, mcp_servers)
        await session.save()
        self._later(self._sessions.offer_commands(session))
        return acp.schema.ForkSessionResponse(
            session_id=record.session_id,
            modes=options.modes(session.mode),
            config_options=await self._offered(session),
        )

    async def list_sessions(
        self, cwd: str | None = None, cursor: str | None = None, **kwargs: Any
    ) -> acp.schema.ListSessionsResponse:
        """Lists stored sessions that have a prompt, newest first."""
        try:
            page, following = await self._store.page(cwd=cwd and plain(cwd), cursor=cursor)
        except ValueError as error:
            raise acp.RequestError.invalid_params({"reason": str(error)}) from error
        return acp.schema.ListSessionsResponse(
            sessions=[session_info(header) for header in page], next_cursor=following
        )

    async def close_session(self, session_id: str, **kwargs: Any) -> None:
        """Cancels what runs and forgets the session; its file stays."""
        await self._sessions.close(session_id)

    async def set_session_mode(self, session_id: str, mode_id: str, **kwargs: Any) -> None:
        """Switches the mode, which counts for the next tool call and the next round."""
        session = self._sessions.get(session_id)
        await self._options.set_mode(session, mode_id)
        await self._options.tell(session)

    async def set_config_option(
        self,
        config_id: str,
        session_id: str,
        value: str | bool,  # noqa: FBT001 - the SDK passes it by name
        **kwargs: Any,
    ) -> acp.schema.SetSessionConfigOptionResponse:
        """Switches the mode or the model, or how the model is asked."""
        changed = await self._options.change(self._sessions.get(session_id), config_id, value)
        return acp.schema.SetSessionConfigOptionResponse(config_options=changed)

    async def cancel(self, session_id: str, **kwargs: Any) -> None:
        """Cancels the prompt in flight and those that wait."""
        log.info("cancel asked for", session_id=session_id)
        self._sessions.get(session_id).take_ticket()

    async def prompt(
        self, session_id: str, prompt: list[Block], **kwargs: Any
    ) -> acp.schema.PromptResponse:
        """Runs one prompt; one that is in flight is cancelled first."""
        session = self._sessions.get(session_id)
        ticket = session.take_ticket()
        structlog.contextvars.bind_contextvars(session_id=session_id)
        async with session.lock:
            return await self._prompting.run(session, ticket, user_parts(prompt))

    async def ext_method(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Deletes a session, which the SDK does not route; there are no extensions."""
        if method == options.DELETE_EXTENSION:
            request = acp.schema.DeleteSessionRequest.model_validate(params)
            await self._sessions.delete(request.session_id)
            return {}
        raise acp.RequestError.method_not_found(f"_{method}")

    async def ext_notification(self, method: str, params: dict[str, Any]) -> None:
        """Ignores, as the protocol asks for notifications that are not known."""

    async def close(self) -> None:
        """Ends every session, and the connections to the endpoints."""
        for task in tuple(self._background):
            task.cancel()
        await self._sessions.close_all()
        await self._endpoints.close()

    async def _offered(self, session: AgentSession) -> list[options.ConfigOption]:
        """Returns the options of a session that opens, and sees to the models of later."""
        shown = await self._options.shown(session)
        is_open = functools.partial(self._sessions.holds, session)
        self._later(self._options.offer_models(session, shown, is_open))
        return shown

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs what must follow the response of the current request."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background_done)

    def _background_done(self, task: "asyncio.Task[None]") -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("update not sent", exc_info=error)

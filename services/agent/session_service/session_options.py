"""What an editor may set in a session: its mode, its model, and how that is asked."""

import asyncio
from collections.abc import Callable, Sequence

import acp
import acp.schema
import structlog

from services.agent import options
from services.agent.core.modes import Mode
from services.agent.endpoints.selection import Endpoints, UnknownModelError
from services.agent.session.session import AgentSession

log = structlog.get_logger(__name__)

_FIRST_SECONDS = 5.0  # from one look for models to the next, twice as long each time
_MOST_SECONDS = 60.0


class SessionOptions:
    """Reads, shows and changes the options of all sessions; the state is the sessions'."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints

    async def shown(self, session: AgentSession) -> list[options.ConfigOption]:
        """Returns a session's options as an editor shows them."""
        selectors = await self._endpoints.selectors()
        record = session.record
        return options.config_options(session.mode, record.model, selectors, record.model_options)

    async def offer_models(
        self,
        session: AgentSession,
        shown: Sequence[options.ConfigOption],
        is_open: Callable[[], bool],
    ) -> None:
        """Shows the models once an endpoint lists any, where none did when the session opened.

        Args:
            session: the one that has opened.
            shown: what the editor was told then.
            is_open: whether the session is still open; ends the wait.
        """
        seconds = _FIRST_SECONDS
        while not await self._endpoints.selectors():
            await asyncio.sleep(seconds)
            seconds = min(2 * seconds, _MOST_SECONDS)
            if not is_open():
                return
        if list(shown) != await self.shown(session):
            await self.tell(session)

    async def change(
        self,
        session: AgentSession,
        config_id: str,
        value: str | bool,  # noqa: FBT001 - as the protocol has it
    ) -> list[options.ConfigOption]:
        """Changes one option, and returns all of them.

        Raises:
            acp.RequestError: there is no such option, or it cannot have that value.
        """
        if not isinstance(value, str):
            raise acp.RequestError.invalid_params({"reason": f"{config_id} takes a text"})
        if config_id == options.MODE_OPTION:
            await self.set_mode(session, value)
            await self._tell_mode(session)
        elif config_id == options.MODEL_OPTION:
            await self._set_model(session, value)
        else:
            await self._set_model_option(session, config_id, value)
        return await self.shown(session)

    async def set_mode(self, session: AgentSession, mode_id: str) -> None:
        """Switches the mode; raises acp.RequestError for one that there is not."""
        try:
            session.record.mode = Mode(mode_id).value
        except ValueError as error:
            known = ", ".join(Mode)
            reason = f"no mode {mode_id!r}; there are {known}"
            raise acp.RequestError.invalid_params({"reason": reason}) from error
        log.info("mode changed", session_id=session.record.session_id, mode=mode_id)
        await session.save()

    async def switch_mode(self, session: AgentSession, mode: Mode) -> None:
        """Switches the mode and tells the editor, in both ways in which editors listen."""
        await self.set_mode(session, mode.value)
        await self._tell_mode(session)
        await self.tell(session)

    async def tell(self, session: AgentSession) -> None:
        """Sends the options to the editor."""
        await session.editor.update(
            acp.schema.ConfigOptionUpdate(
                session_update="config_option_update", config_options=await self.shown(session)
            )
        )

    async def _tell_mode(self, session: AgentSession) -> None:
        await session.editor.update(
            acp.schema.CurrentModeUpdate(
                session_update="current_mode_update", current_mode_id=session.mode.value
            )
        )

    async def _set_model(self, session: AgentSession, selector: str) -> None:
        try:
            session.record.model = await self._endpoints.checked(selector)
        except UnknownModelError as error:
            raise acp.RequestError.invalid_params({"reason": str(error)}) from error
        session.text_only.clear()  # the endpoint may have been taught tools since
        log.info("model changed", session_id=session.record.session_id, model=session.record.model)
        await session.save()

    async def _set_model_option(self, session: AgentSession, config_id: str, value: str) -> None:
        record = session.record
        try:
            record.model_options = options.changed(record.model_options, config_id, value)
        except LookupError as error:
            raise acp.RequestError.invalid_params({"reason": str(error)}) from error
        log.info("option changed", session_id=record.session_id, option=config_id, value=value)
        await session.save()

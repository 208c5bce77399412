"""Which models there are, and which endpoint a selector such as `cortex:qwen3-8b` means."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from services.agent.core.settings import AgentSettings, EndpointSettings
from services.agent.endpoints.endpoint import Endpoint, EndpointError, EndpointModel
from services.backplane.timeouts import timeout

log = structlog.get_logger(__name__)

_LISTING_SECONDS = 5.0
_FRESH_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Selection:
    """A model at an endpoint.

    Attributes:
        context_window: tokens; the setting's, else what the endpoint lists, else None.
        can_see: whether the model takes pictures; None where the endpoint does not say.
        can_call: whether it takes tools; None where the endpoint does not say.
    """

    endpoint: Endpoint
    settings: EndpointSettings
    model: str
    context_window: int | None
    can_see: bool | None = None
    can_call: bool | None = None

    @property
    def selector(self) -> str:
        """The `endpoint:model` that leads back here."""
        return f"{self.settings.name}:{self.model}"


class UnknownModelError(Exception):
    """No endpoint or model answers to a selector; the message is fit for a person."""


class Endpoints:
    """All endpoints, and what they last listed.

    Listings are kept for a minute; an endpoint that fails is logged and lists nothing.
    """

    def __init__(
        self,
        settings: AgentSettings,
        *,
        connect: Callable[[EndpointSettings], Endpoint],
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._endpoints: Mapping[str, Endpoint] = {
            each.name: connect(each) for each in settings.endpoints
        }
        self._listed: dict[str, tuple[float, list[EndpointModel]]] = {}

    async def selectors(self) -> list[str]:
        """Returns every `endpoint:model` that can chat, configured ones first, within 5 seconds."""
        names = list(self._endpoints)
        listings = await asyncio.gather(*(self._list(name) for name in names))
        found: dict[str, None] = {}
        for each in self._settings.endpoints:
            if each.model:
                found[f"{each.name}:{each.model}"] = None
        for name, models in zip(names, listings, strict=True):
            for model in models:
                if model.can_chat:
                    found[f"{name}:{model.id}"] = None
        return list(found)

    async def can_see(self) -> bool:
        """Says whether pictures may be sent: a model takes them, or may for all that is known."""
        listings = await asyncio.gather(*(self._list(each) for each in self._endpoints))
        known = [model for models in listings for model in models if model.can_chat]
        names = [each.model for each in self._settings.endpoints if each.model]
        is_unknown = not known or any(_named(name, known) is None for name in names)
        return is_unknown or any(model.can_see is not False for model in known)

    async def default(self) -> str:
        """Returns the selector to start with: the setting's, else the first that can chat.

        Empty when the endpoint is away or lists none.
        """
        settings = self._settings.endpoint("")
        assert settings is not None  # the settings were checked
        if settings.model:
            return f"{settings.name}:{settings.model}"
        models = [each for each in await self._list(settings.name) if each.can_chat]
        return f"{settings.name}:{models[0].id}" if models else ""

    def settings_of(self, selector: str) -> tuple[EndpointSettings, str]:
        """Splits a selector at its first colon, if what precedes it names an endpoint.

        A bare model may contain colons itself (`llama3:8b`); it goes to the default endpoint.

        Raises:
            UnknownModelError: the selector is empty.
        """
        name, _, model = selector.partition(":")
        if name in self._endpoints and model:
            settings = self._settings.endpoint(name)
        else:
            settings, model = self._settings.endpoint(""), selector
        if settings is None or not model:
            first = self._settings.endpoint("")
            where = "the endpoint" if first is None else f"{first.name} ({first.base_url})"
            raise UnknownModelError(
                f"no model is selected, and {where} lists none that can chat or cannot be reached"
            )
        return settings, model

    async def select(self, selector: str) -> Selection:
        """Returns where to ask; an empty selector is resolved as `default` does.

        Raises:
            UnknownModelError: nothing is selected and no endpoint names a model.
        """
        settings, model = self.settings_of(selector or await self.default())
        models = await self._list(settings.name)
        listed = _named(model, models) or EndpointModel(model)
        return Selection(
            endpoint=self._endpoints[settings.name],
            settings=settings,
            model=model,
            context_window=settings.context_window or listed.context_window,
            can_see=listed.can_see,
            can_call=listed.can_call,
        )

    async def checked(self, selector: str) -> str:
        """Returns the `endpoint:model` that a selector means.

        Raises:
            UnknownModelError: it is empty, or the endpoint lists its models and not this one.
        """
        settings, model = self.settings_of(selector)
        models = [each for each in await self._list(settings.name) if each.can_chat]
        if models and model != settings.model and _named(model, models) is None:
            raise UnknownModelError(f"{settings.name} lists no model {model!r} that can chat")
        return f"{settings.name}:{model}"

    async def close(self) -> None:
        """Closes every endpoint."""
        for endpoint in self._endpoints.values():
            await endpoint.close()

    async def _list(self, name: str) -> list[EndpointModel]:
        when, models = self._listed.get(name, (float("-inf"), []))
        if self._clock() - when < _FRESH_SECONDS:
            return models
        try:
            async with timeout(_LISTING_SECONDS):
                models = await self._endpoints[name].models()
        except (EndpointError, TimeoutError) as error:
            log.warning("models not listed", endpoint=name, exc_info=error)
        # A failure is remembered too, shortly: every round asks, and must not wait each time.
        fresh = _FRESH_SECONDS if models else _LISTING_SECONDS
        self._listed[name] = (self._clock() - _FRESH_SECONDS + fresh, models)
        return models


def _named(name: str, models: Sequence[EndpointModel]) -> EndpointModel | None:
    """Returns the model of a name or an alias; Ollama's `latest` goes without saying."""
    names = {name, f"{name}:latest"}
    return next((each for each in models if names & {each.id, *each.aliases}), None)

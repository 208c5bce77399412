"""Builds the endpoint of each setting, with deadlines on reads and none on whole answers.

A vendor's client takes most of a second to import, so only the one in use is: an editor waits.
"""

from services.agent.core.settings import EndpointSettings
from services.agent.endpoints.endpoint import Endpoint

_RETRIES = 3  # before the first byte only; the clients honour Retry-After
_NO_KEY = "unused"  # without one the clients would send a vendor's key from the environment


def connect(settings: EndpointSettings) -> Endpoint:
    """Returns the endpoint; nothing is sent yet.

    The time-out is the longest silence on the wire, so that a long answer is never cut.
    """
    if settings.wire_api == "anthropic-messages":
        return _anthropic(settings)
    return _openai(settings)


def _openai(settings: EndpointSettings) -> Endpoint:
    import openai

    from services.agent.endpoints.chat import ChatEndpoint
    from services.agent.endpoints.responses import ResponsesEndpoint

    client = openai.AsyncOpenAI(
        base_url=settings.base_url,
        api_key=settings.api_key or _NO_KEY,
        timeout=openai.Timeout(settings.idle_seconds, connect=settings.connect_seconds),
        max_retries=_RETRIES,
        default_headers=settings.headers,
    )
    if settings.wire_api == "openai-responses":
        return ResponsesEndpoint(name=settings.name, client=client)
    return ChatEndpoint(name=settings.name, client=client)


def _anthropic(settings: EndpointSettings) -> Endpoint:
    import anthropic

    from services.agent.endpoints.messages import MessagesEndpoint

    client = anthropic.AsyncAnthropic(
        base_url=settings.base_url.rstrip("/").removesuffix("/v1"),
        api_key=settings.api_key or _NO_KEY,
        timeout=anthropic.Timeout(settings.idle_seconds, connect=settings.connect_seconds),
        max_retries=_RETRIES,
        default_headers=settings.headers,
    )
    return MessagesEndpoint(name=settings.name, client=client)
